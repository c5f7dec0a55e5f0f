"""A character network, two LSTM layers trained on Shakespeare, writes on from a few letters.

python -m examples.char_rnn [LETTERS] [NUMBER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import builder_host as bh
import runtime_edge as rt
from builder_host.network.api_recurrent import RnnWeights
from examples.digits import DATA

Array = np.ndarray[Any, Any]

MANIFEST = DATA / "rnn" / "charrnn_shakespeare" / "manifest.json"
QUICK = bh.BuilderConfig(measure="none", num_threads=1)  # leave `measure` out to time every kernel
_TF_GATES = (0, 3, 2, 1)  # BasicLSTMCell has i, j (candidate), f, o; ours are i, o, f, candidate


def character_network(manifest: Path) -> tuple[bh.Network, Array, dict[str, int]]:
    """One step of the network: row, hidden and cell in; logits, hidden and cell out.

    Returns:
        Network, embedding [characters, 128] and the number of each character.
    """
    folder = manifest.parent
    weights = {}
    for name, entry in json.loads(manifest.read_text()).items():
        if entry["shape"]:
            values = np.fromfile(folder / entry["filename"], "<f4")
            weights[name] = values.reshape(entry["shape"])
    hidden = weights["rnnlm/softmax_w"].shape[0]
    layers = []
    for number in (0, 1):
        stem = f"rnnlm/multi_rnn_cell/cell_{number}/basic_lstm_cell"
        kernel = weights[f"{stem}/weights"].T.reshape(4, hidden, 2 * hidden)[list(_TF_GATES)]
        bias = weights[f"{stem}/biases"].reshape(4, hidden)[list(_TF_GATES)].copy()
        bias[2] += 1.0  # what TensorFlow adds to the forget gate
        rows = kernel.reshape(4 * hidden, 2 * hidden)
        layers.append(
            RnnWeights(rows[None, :, hidden:], rows[None, :, :hidden], bias.reshape(1, -1))
        )
    network = bh.Network("charrnn")
    row = network.add_input("row", (1, 1, weights["embedding"].shape[1]))
    states = [network.add_input(name, (2, 1, hidden)) for name in ("hidden", "cell")]
    outputs = network.add_rnn(
        row, "lstm", hidden, layers, initial_hidden=states[0], initial_cell=states[1]
    )
    logits = network.add_fully_connected(
        outputs.output,
        weights["rnnlm/softmax_b"].size,
        np.ascontiguousarray(weights["rnnlm/softmax_w"].T),
        weights["rnnlm/softmax_b"],
    )
    network.mark_output(logits.output, "logits")
    network.mark_output(outputs.hidden, "last_hidden")
    assert outputs.cell is not None
    network.mark_output(outputs.cell, "last_cell")
    return network, weights["embedding"], json.loads((folder / "vocab.json").read_text())


def main() -> int:
    """Write letter by letter; the states go round from outputs to inputs."""
    text = sys.argv[1] if len(sys.argv) > 1 else "The "
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    network, embedding, numbers = character_network(MANIFEST)
    letters = {number: letter for letter, number in numbers.items()}
    with rt.load(bh.build(network, QUICK).to_bytes()).create_context() as context:
        state = {"hidden": np.zeros((2, 1, 128), np.float32)}
        state["cell"] = np.zeros_like(state["hidden"])
        for position in range(len(text) + count - 1):
            row = embedding[numbers[text[position]]][None, None]
            out = context.execute({"row": row, **state})
            state = {"hidden": out["last_hidden"], "cell": out["last_cell"]}
            if position + 1 == len(text):
                text += letters[int(out["logits"].argmax())]
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
