"""Recurrent networks: edgeplan against ONNX Runtime (CPU), or against cuDNN in a CUDA graph (GPU).

Trained networks of tests/data/rnn, one step each, whose states go in and out, and stacks with
made-up weights.
Both sides run in this process, in alternating blocks; outputs are compared first.

    python -m benchmarks.bench_rnn --threads 2 --timing-cache rnn.cache
    python -m benchmarks.bench_rnn --gpu --precision fp16 [--steps] [lstm_512x2_s100 ...]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

import builder_host as bh
import runtime_edge as rt
from builder_host.network.layers.recurrent import by_role
from examples.char_rnn import MANIFEST, character_network

_DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "rnn"
_GATES = {"LSTM": 4, "GRU": 3}


@dataclass(frozen=True, slots=True)
class Stack:
    """Recurrent layers on top of each other with random weights."""

    op: str
    hidden: int
    layers: int
    steps: int
    batch: int = 1
    is_bidirectional: bool = False

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.is_bidirectional else 1

    def weights(self) -> list[list[np.ndarray]]:
        """W, R and B of each layer in ONNX order; the recurrent gain stays near one."""
        random = np.random.default_rng(0)
        rows, found = _GATES[self.op] * self.hidden, []
        for layer in range(self.layers):
            width = self.hidden * (self.directions if layer else 1)
            shapes = [(rows, width), (rows, self.hidden), (2 * rows,)]
            found.append(
                [
                    (random.uniform(-1, 1, (self.directions, *s)) / math.sqrt(self.hidden)).astype(
                        np.float32
                    )
                    for s in shapes
                ]
            )
        return found

    def model(self) -> onnx.ModelProto:
        """As PyTorch exports it: a node per layer, Transpose and Reshape between them."""
        nodes, constants, x = [], [], "x"
        shape = np.asarray([0, 0, -1], np.int64)
        constants.append(numpy_helper.from_array(shape, "shape"))
        for number, arrays in enumerate(self.weights()):
            names = [f"{kind}{number}" for kind in "WRB"]
            constants += [numpy_helper.from_array(a, n) for a, n in zip(arrays, names, strict=True)]
            direction = "bidirectional" if self.is_bidirectional else "forward"
            more = {"linear_before_reset": 1} if self.op == "GRU" else {}
            nodes += [
                helper.make_node(
                    self.op, [x, *names], [f"y{number}"],
                    hidden_size=self.hidden, direction=direction, **more,
                ),
                helper.make_node("Transpose", [f"y{number}"], [f"t{number}"], perm=[0, 2, 1, 3]),
                helper.make_node("Reshape", [f"t{number}", "shape"], [f"x{number}"]),
            ]  # fmt: skip
            x = f"x{number}"
        nodes[-1].output[0] = "y"
        io = [
            helper.make_tensor_value_info(name, 1, (self.steps, self.batch, width))
            for name, width in (("x", self.hidden), ("y", self.hidden * self.directions))
        ]
        graph = helper.make_graph(nodes, "stack", [io[0]], [io[1]], constants)
        opsets = [helper.make_opsetid("", 14)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


STACKS = {
    "lstm_512x2_s100": Stack("LSTM", 512, 2, 100),
    "lstm_128_s100": Stack("LSTM", 128, 1, 100),
    "lstm_256bi_s50": Stack("LSTM", 256, 1, 50, is_bidirectional=True),
    "gru_256x2_s100": Stack("GRU", 256, 2, 100),
    "lstm_256_s50_b8": Stack("LSTM", 256, 1, 50, batch=8),
}
CHARACTERS = "charrnn"  # no ONNX file: both sides are made of the stored weights
TRAINED = {"dtln": "dtln/model_1.onnx", "silero": "silero/silero_vad_16k_op15.onnx"}
_SHAPES = {"silero": {"input": (1, 576), "state": (2, 1, 128)}}


def character_model(network: bh.Network) -> onnx.ModelProto:
    """The character network's layers as ONNX nodes, states in one tensor each as there."""
    cells = [layer for layer in network.layers if layer.kind == "recurrent"]
    (dense,) = (layer for layer in network.layers if layer.kind == "fully_connected")
    nodes, known, x = [], {"axis": np.asarray([1], np.int64)}, "row"
    for state in ("hidden", "cell"):
        parts = [f"{state}{number}" for number in range(len(cells))]
        nodes.append(helper.make_node("Split", [state], parts, axis=0, num_outputs=len(cells)))
    for number, layer in enumerate(cells):
        given = by_role(layer.params, layer.inputs)
        known[f"W{number}"], known[f"R{number}"] = (
            given["weights"].values,
            given["recurrent"].values,
        )
        known[f"B{number}"] = np.hstack([given["bias"].values, 0 * given["bias"].values])
        names = [x, f"W{number}", f"R{number}", f"B{number}", ""]
        nodes += [
            helper.make_node(
                "LSTM", [*names, f"hidden{number}", f"cell{number}"],
                [f"y{number}", f"h{number}", f"c{number}"], hidden_size=layer.params.hidden_size,
            ),
            helper.make_node("Squeeze", [f"y{number}", "axis"], [f"x{number}"]),
        ]  # fmt: skip
        x = f"x{number}"
    known["D"], known["b"] = (tensor.values for tensor in dense.inputs[1:])
    nodes += [
        helper.make_node("Squeeze", [x, "axis"], ["flat"]),
        helper.make_node("Gemm", ["flat", "D", "b"], ["logits"], transB=1),
        helper.make_node("Concat", ["h0", "h1"], ["last_hidden"], axis=0),
        helper.make_node("Concat", ["c0", "c1"], ["last_cell"], axis=0),
    ]
    io = [
        [helper.make_tensor_value_info(t.name, 1, t.shape) for t in tensors]
        for tensors in (network.inputs, network.outputs)
    ]
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in known.items()]
    graph = helper.make_graph(nodes, CHARACTERS, *io, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def load(name: str) -> tuple[bytes, bh.Network, dict[str, np.ndarray]]:
    """A network by name: for the peer, for edgeplan, and its inputs."""
    random = np.random.default_rng(1)
    if name in STACKS:
        model = STACKS[name].model()
        network = bh.import_onnx(model)
    elif name == CHARACTERS:
        network = character_network(MANIFEST)[0]
        model = character_model(network)
    else:
        model = onnx.load(_DATA / TRAINED[name])
        network = bh.import_onnx(_DATA / TRAINED[name], shapes=_SHAPES.get(name))
    inputs: dict[str, np.ndarray] = {}
    for tensor in network.inputs:
        if tensor.dtype.is_float:
            inputs[tensor.name] = random.uniform(-1, 1, tensor.shape).astype(np.float32)
        else:  # the sample rate
            inputs[tensor.name] = np.full(tensor.shape, 16000, np.int64)
    return model.SerializeToString(), network, inputs


def bench_cpu(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Build, check and time one network on the CPU; a row of the table."""
    from benchmarks.peers import interleaved, ort_session

    model, network, inputs = load(name)
    config = bh.BuilderConfig(
        num_threads=args.threads, timing_cache=args.timing_cache, is_checked=False
    )
    built = bh.build(network, config)
    session = ort_session(model, args.threads)
    names = [output.name for output in session.get_outputs()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.plan"
        built.save(path)
        context = rt.load(path).create_context()
        ours = {key: np.array(value) for key, value in context.execute(inputs).items()}
        theirs = dict(zip(names, session.run(None, inputs), strict=True))
        error = max(float(np.abs(ours[n] - theirs[n]).max()) for n in names)
        if not error < 1e-3:
            raise SystemExit(f"{name}: outputs differ by {error:.3g}, nothing was timed")
        mine, peer = interleaved(
            [lambda: context.execute(inputs), lambda: session.run(None, inputs)],
            seconds=args.seconds,
        )
        if args.steps:
            for step in built.plan.variants[0].profiles[0].steps[:40]:
                print("   ", step.name, step.tactic, step.measured_us, file=sys.stderr)
    return {
        "network": name,
        "edgeplan_us": mine.median_us,
        "edgeplan_p20_p80_us": [mine.p20_us, mine.p80_us],
        "peer_us": peer.median_us,
        "peer_p20_p80_us": [peer.p20_us, peer.p80_us],
        "ratio": peer.median_us / mine.median_us,
        "ratio_of_minima": peer.min_us / mine.min_us,
        "error": error,
    }


def cudnn_replay(
    stack: Stack, x: np.ndarray, *, half: bool
) -> tuple[Callable[[], None], Callable[[], np.ndarray]]:
    """The stack as torch.nn, captured in a CUDA graph: replay, and its result."""
    import torch

    kind = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}[stack.op]
    module = kind(stack.hidden, stack.hidden, stack.layers, bidirectional=stack.is_bidirectional)
    # cuDNN: LSTM i, f, g, o; GRU r, z, n. ONNX: i, o, f, c; z, r, h.
    order = [0, 2, 3, 1] if stack.op == "LSTM" else [1, 0, 2]
    rows = _GATES[stack.op] * stack.hidden

    def ordered(values: np.ndarray) -> torch.Tensor:
        parts = values.reshape(_GATES[stack.op], stack.hidden, *values.shape[1:])[order]
        return torch.from_numpy(np.ascontiguousarray(parts.reshape(values.shape)))

    with torch.no_grad():
        for number, (w, r, b) in enumerate(stack.weights()):
            for d in range(stack.directions):
                suffix = f"l{number}" + ("_reverse" if d else "")
                getattr(module, f"weight_ih_{suffix}").copy_(ordered(w[d]))
                getattr(module, f"weight_hh_{suffix}").copy_(ordered(r[d]))
                getattr(module, f"bias_ih_{suffix}").copy_(ordered(b[d, :rows]))
                getattr(module, f"bias_hh_{suffix}").copy_(ordered(b[d, rows:]))
    dtype = torch.float16 if half else torch.float32
    module = module.cuda().to(dtype).eval()
    module.flatten_parameters()
    given = torch.from_numpy(x).cuda().to(dtype)
    side = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):
            module(given)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y, _ = module(given)
    return graph.replay, lambda: (graph.replay(), y.float().cpu().numpy())[1]


def bench_gpu(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Build with timings of this GPU, check against float64, time beside cuDNN."""
    import torch

    from benchmarks.bench_gpu import build_plan, host_us, interleaved_us
    from builder_host.network.evaluate import evaluate_network

    stack = STACKS[name]
    model, network, inputs = load(name)
    (expected,) = evaluate_network(network, inputs).values()
    with tempfile.TemporaryDirectory() as folder:
        path, _, times = build_plan(
            onnx.load_from_string(model), args.precision, Path(folder), Path(args.timing_cache)
        )
        context = rt.load(path).create_context()
        stream = context.engine.create_stream()
        x, y = torch.from_numpy(inputs["x"]).cuda(), torch.empty(expected.shape, device="cuda")
        torch.cuda.synchronize()
        bindings = {"x": x.data_ptr(), "y": y.data_ptr()}
        context.enqueue(bindings, stream)
        stream.synchronize()
        row: dict[str, object] = {
            "network": name,
            "precision": args.precision,
            "error": float(np.abs(y.cpu().numpy() - expected).max()),
            **times,
        }
        replay, result = cudnn_replay(stack, inputs["x"], half=args.precision == "fp16")
        row["cudnn_error"] = float(np.abs(result() - expected).max())
        sides = {"edgeplan": lambda: context.enqueue(bindings, stream), "cudnn": replay}
        for side, samples in interleaved_us(sides).items():
            row[f"{side}_us"] = statistics.median(samples)
        row["ratio"] = float(str(row["cudnn_us"])) / float(str(row["edgeplan_us"]))
        row["enqueue_us"] = host_us(sides["edgeplan"], stream.synchronize)
        if args.steps:
            for step in context.measure_steps(bindings, repeats=20)[:12]:
                print(f"    {step.name} {step.time_us:.2f} us, {step.tactic}")
            for line in Path(args.timing_cache).read_text().splitlines():
                if "recurrent" in line:
                    print("    ", line[:400])
    if not float(str(row["error"])) < (0.02 if args.precision == "fp16" else 1e-4):
        raise SystemExit(f"{name}: the output is wrong by {row['error']}")
    return row


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "networks", nargs="*", help=f"of {', '.join([CHARACTERS, *TRAINED, *STACKS])}"
    )
    parser.add_argument("--gpu", action="store_true", help="on the GPU; stacks only")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp16", help="on the GPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="timing per network")
    parser.add_argument("--timing-cache", default="rnn.cache")
    parser.add_argument("--steps", action="store_true", help="also the steps")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    names = args.networks or ([] if args.gpu else [CHARACTERS, *TRAINED]) + list(STACKS)
    rows = []
    for name in names:
        row = bench_gpu(name, args) if args.gpu else bench_cpu(name, args)
        rows.append(row)
        text = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()]
        print("; ".join(text), flush=True)
    mean = math.exp(sum(math.log(float(str(row["ratio"]))) for row in rows) / len(rows))
    print(f"geometric mean of the ratios: {mean:.3f}")
    if args.json:
        Path(args.json).write_text(json.dumps({"threads": args.threads, "rows": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
