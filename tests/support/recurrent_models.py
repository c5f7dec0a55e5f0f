"""The recurrent reference cases: audio as their networks take it, and the character network."""

from __future__ import annotations

import json
import wave
from typing import Any

import numpy as np

import builder_host as bh
from builder_host.network.api_recurrent import RnnWeights
from support.cases import DATA

Array = np.ndarray[Any, Any]

CHUNK, CONTEXT = 512, 64
_TF_GATES = (0, 3, 2, 1)  # BasicLSTMCell has i, j (candidate), f, o; ours are i, o, f, candidate


def speech(paths: list[str]) -> Array:
    """Clips one after another as float32 in [-1, 1)."""
    parts = []
    for path in paths:
        with wave.open(str(DATA / path)) as clip:
            frames = clip.readframes(clip.getnframes())
        parts.append(np.frombuffer(frames, np.int16).astype(np.float32) / 32768)
    return np.concatenate(parts)


def speech_chunks(samples: Array) -> list[Array]:
    """Rows of 64 samples of context and 512 new ones, as far as there are whole chunks."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
    count = len(samples) // CHUNK
    return [padded[None, i * CHUNK : i * CHUNK + CONTEXT + CHUNK] for i in range(count)]


def character_network(manifest: str) -> tuple[bh.Network, Array, dict[str, int]]:
    """One step of the network: row, hidden and cell in; logits, hidden and cell out.

    Returns:
        Network, embedding [characters, 128] and the number of each character.
    """
    folder = (DATA / manifest).parent
    weights = {}
    for name, entry in json.loads((DATA / manifest).read_text()).items():
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
