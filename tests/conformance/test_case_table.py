"""The reference cases on every device: import, build, save, load, run, compare.

Tactics come from the cost model, so that the table needs no timing and no idle machine; which
tactic runs must not change the answer beyond the tolerance of the case. In float16 some fifty
roundings of 2^-11 in a row let the relative L2 error reach 1e-2; a single element, where a steep
function such as a sigmoid meets a rounded argument, may be off by 5 % of the largest value.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cases import DATA, Case, case, load, model_paths, preprocessed
from support.emulated_board import require_emulators
from support.emulated_runtime import emulated_context
from support.recurrent_models import speech, speech_chunks

import builder_host as bh
import runtime_edge as rt
from examples.char_rnn import character_network
from planformat.fingerprint import fingerprint_to_json

CAFFE = [
    "caffe/lenet/digits",
    "caffe/samplenet/two",
    "caffe/mtcnn/det1_pair",
    "caffe/mtcnn/det2_crops",
    "caffe/wechat_qr/qr",
    "caffe/ultraface/pair",
    "caffe/waifu2x/catcrop",
    "caffe/hyperlpr/finemap",
    "caffe/hyperlpr/windows",
    "caffe/deeplandmark/2_LE1_patch",
    "caffe/deeplandmark/2_N1_patch",
    "caffe/squeezenet_v1.1/four",
    "caffe/yoloface/pair",
    "caffe/conv_bn/cat",
    "caffe/layers/layer_convolution",
    "caffe/layers/layer_inner_product",
    "caffe/layers/layer_lrn_channels",
    "caffe/layers/layer_pooling_ave",
    "caffe/layers/layer_pooling_max",
    "caffe/layers/layer_softmax",
]
ONNX = [
    "onnx/mnist/test_data_0",
    "onnx/mnist/test_data_1",
    "onnx/mnist/test_data_2",
    "onnx/samplenet/two_rgb",
    "onnx/super_resolution/zoo",
    "onnx/ultraface/pair",
    "onnx/classify/squeezenet_fp16",
    "onnx/yunet/pair",
    "onnx/fastestdet/dog",
    "onnx/selfie_seg/pair",
    "onnx/tract/deconv_group",
    "onnx/tract/averagepool_count_include_pad",
]
UFF = ["uff/allcnn/digits", "uff/ppo/random8"]
TENSORFLOW = ["uff/tf/kws/CNN_S", "uff/tf/kws/GRU_S"]
RECURRENT = [
    "onnx/tract/byte_sb_bidi_lstm",
    "rnn/silero/three_words",
    "rnn/dtln/yes",
    "rnn/charrnn_shakespeare/the",
]
LIGHT = ["bvlc_alexnet", "inception_v1", "resnet50", "shufflenet", "squeezenet", "vgg19"]

ROWS = {
    "test_caffe_case": CAFFE,
    "test_onnx_case": ONNX,
    "test_uff_case": UFF,
    "test_tensorflow_case": TENSORFLOW,
    "test_light_model": LIGHT,
}
"""Cases of the tests that take one; the other tests are a case each."""

DEVICES = {
    "cpu": [],
    "aarch64": [pytest.mark.emulated],
    "cuda-fp32": [pytest.mark.gpu],
    "cuda-tf32": [pytest.mark.gpu],
    "cuda-fp16": [pytest.mark.gpu],
}
AARCH64_CORE = {
    "caffe/lenet/digits",
    "caffe/mtcnn/det2_crops",
    "caffe/deeplandmark/2_N1_patch",
    "caffe/conv_bn/cat",
    "caffe/layers/layer_lrn_channels",
    "caffe/layers/layer_softmax",
    "uff/ppo/random8",
    "test_bidirectional_byte_lstm",
}
"""Cases that run emulated wherever an emulator is; the others of aarch64 are slow."""


def pytest_generate_tests(metafunc):
    """Each test on every device, with every case of its own."""
    if "config" not in metafunc.fixturenames:
        return
    name = metafunc.function.__name__
    rows = []
    for device, marks in DEVICES.items():
        for row in ROWS.get(name, [None]):
            is_slow = device == "aarch64" and (row or name) not in AARCH64_CORE
            is_slow |= row == "vgg19"
            values = [device] if row is None else [device, row]
            rows.append(pytest.param(*values, marks=[*marks, *[pytest.mark.slow] * is_slow]))
    arguments = ["config"] if name not in ROWS else ["config", "case_id"]
    metafunc.parametrize(arguments, rows, indirect=["config"])


@pytest.fixture(scope="session")
def configs(tmp_path_factory):
    """One worker, tactics by the cost model, compiled code kept for the session; by device."""

    @functools.cache
    def made(device: str) -> bh.BuilderConfig:
        folder = tmp_path_factory.mktemp("artifacts")
        target, precision = "host-cpu", "fp32"
        if device == "aarch64":
            target = "virt-aarch64"
        elif device != "cpu":
            from runtime_edge.device.cuda_probe import probe_gpu

            target, precision = str(folder / "gpu.json"), device.removeprefix("cuda-")
            Path(target).write_text(fingerprint_to_json(probe_gpu(0)))
        return bh.BuilderConfig(
            target=target,
            precision=precision,
            num_threads=1,
            measure="none",
            artifact_dir=folder,
            is_checked=False,
        )

    return made


@pytest.fixture
def config(request, configs):
    """Of the device that `pytest_generate_tests` names."""
    if request.param == "aarch64":
        require_emulators(is_machine=False)
    return configs(request.param)


def check(
    config: bh.BuilderConfig,
    actual: np.ndarray,
    expected: np.ndarray,
    *,
    atol: float,
    rtol: float = 0.0,
) -> None:
    """Compare one output within the tolerance of the precision."""
    wide, expected = actual.reshape(expected.shape).astype(np.float64), expected.astype(np.float64)
    if config.precision in ("fp16", "tf32"):  # both round to 11 significant bits
        error = np.linalg.norm(wide - expected) / np.linalg.norm(expected)
        assert error <= max(1e-2, atol)
        atol = max(atol, 5e-2 * float(np.abs(expected).max()))
    np.testing.assert_allclose(wide, expected, rtol=rtol, atol=atol)


@contextlib.contextmanager
def context_of(path: Path, config: bh.BuilderConfig) -> Iterator[Any]:
    """Load a plan with its canary where its target is: here, or in an emulated process."""
    if config.target == "virt-aarch64":
        with emulated_context(path) as context:
            yield context
    else:
        with rt.load(path) as engine, engine.create_context() as context:
            yield context


def run_plan(
    network: bh.Network,
    config: bh.BuilderConfig,
    path: Path,
    batches: list[Mapping[str, np.ndarray]],
) -> list[dict[str, np.ndarray]]:
    """Build, save, load with canary, and run every batch."""
    bh.build(network, config).save(path)
    with context_of(path, config) as context:
        return [
            {name: np.array(values) for name, values in context.execute(batch).items()}
            for batch in batches
        ]


def test_caffe_case(case_id, config, tmp_path):
    one = case(case_id)
    inputs = {name: preprocessed(one, load(path)) for name, path in one.inputs.items()}
    network = bh.import_caffe(
        *model_paths(one),
        shapes={name: array.shape for name, array in inputs.items()},
        outputs=list(one.outputs),
    )
    inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
    (results,) = run_plan(network, config, tmp_path / "case.plan", [inputs])
    for output, stored in one.outputs.items():
        actual, expected = results[output], load(stored)
        if case_id == "caffe/conv_bn/cat":
            actual = actual[:, :16]  # so many channels were kept
        if case_id == "caffe/wechat_qr/qr":
            # only as many rows are filled as there are boxes; engines fill the rest differently
            actual, expected = (a[0, 0][a[0, 0, :, 2] > 0] for a in (actual, expected))
        check(config, actual, expected, atol=one.atol)


def test_onnx_case(case_id, config, tmp_path):
    one = case(case_id)
    (path,) = model_paths(one)
    network = bh.import_onnx(path)
    arrays = {name: preprocessed(one, load(file)) for name, file in one.inputs.items()}
    images = max(len(array) for array in arrays.values())  # these networks take one at a time
    batches = [
        {name: np.ascontiguousarray(array[i : i + 1]) for name, array in arrays.items()}
        for i in range(images)
    ]
    results = run_plan(network, config, tmp_path / "case.plan", batches)
    for key, stored in one.outputs.items():
        output, _, part = key.partition("[")
        name = output if output in results[0] else next(iter(results[0]))
        actual = np.concatenate([result[name] for result in results])
        if part:  # the table stores every fourth row and second column
            assert part == ":,:,::4,::2]"
            actual = actual[:, :, ::4, ::2]
        expected = load(stored)
        check(config, actual, expected, atol=one.atol)


def test_uff_case(case_id, config, tmp_path):
    one = case(case_id)
    (path,) = model_paths(one)
    inputs = {name: preprocessed(one, load(file)) for name, file in one.inputs.items()}
    shapes = {name: array.shape for name, array in inputs.items()}
    network = bh.import_uff(path, shapes=shapes, order="NHWC")
    (results,) = run_plan(network, config, tmp_path / "case.plan", [inputs])
    for output, stored in one.outputs.items():
        check(config, results[output], load(stored), atol=one.atol)


def test_tensorflow_case(case_id, config, tmp_path):
    one = case(case_id)
    (path,) = model_paths(one)
    clips = {name: load(file) for name, file in one.inputs.items()}
    shapes = {name: (1, *array.shape[1:]) for name, array in clips.items()}
    batches = [
        {name: array[i : i + 1] for name, array in clips.items()}
        for i in range(len(next(iter(clips.values()))))
    ]
    network = bh.import_tensorflow(path, shapes=shapes)
    results = run_plan(network, config, tmp_path / "case.plan", batches)
    for output, stored in one.outputs.items():
        actual = np.concatenate([result[output] for result in results])
        check(config, actual, load(stored), atol=one.atol)


def test_light_model(case_id, config, tmp_path):
    if config.precision == "fp16" and case_id != "shufflenet":
        pytest.skip("made-up weights drive values beyond 65,504 (up to 8e20), where float16 ends")
    network = bh.import_onnx(DATA / f"onnx/light/light_{case_id}.onnx")
    (data,) = network.inputs
    expected = load(f"onnx/light/light_{case_id}_output_0.pb")
    values = np.linspace(-1, 1, data.type.num_elems, dtype=np.float32).reshape(data.shape)
    (result,) = run_plan(network, config, tmp_path / "light.plan", [{data.name: values}])
    (actual,) = result.values()
    check(config, actual, expected, rtol=1e-3, atol=1e-6)


def test_lenet_gets_990_of_1000_digits(config, tmp_path):
    one = case("caffe/lenet/accuracy")
    stored = load(one.inputs["data"])
    images = next(a for a in stored.values() if a.ndim == 3)
    labels = next(a for a in stored.values() if a.ndim == 1)
    network = bh.import_caffe(*model_paths(one), shapes={"data": (100, 1, 28, 28)})
    values = preprocessed(one, images[:, None])
    batches = [{"data": values[i : i + 100]} for i in range(0, 1000, 100)]
    results = run_plan(network, config, tmp_path / "lenet.plan", batches)
    prob = np.concatenate([result["prob"] for result in results])
    right = int((prob.argmax(1) == labels).sum())
    assert right == 990 if config.precision == "fp32" else abs(right - 990) <= 1


def test_bidirectional_byte_lstm(config, tmp_path):
    one = case("onnx/tract/byte_sb_bidi_lstm")
    values = load(one.inputs["input"])
    (path,) = model_paths(one)
    network = bh.import_onnx(path, shapes={"input": values.shape})
    (result,) = run_plan(network, config, tmp_path / "case.plan", [{"input": values}])
    ((output, stored),) = one.outputs.items()
    check(config, result[output], load(stored), atol=one.atol)


def run_chain(network, config, path, rows, states):
    """Run a plan row after row; `states` maps an input to the output that it gets next."""
    bh.build(network, config).save(path)
    shapes = {t.name: t.shape for t in network.inputs}
    held = {name: np.zeros(shapes[name], np.float32) for name in states}
    results = []
    with context_of(path, config) as context:
        for row in rows:
            found = context.execute({**row, **held})
            results.append({name: np.array(values) for name, values in found.items()})
            held = {name: results[-1][output] for name, output in states.items()}
    return results


def test_voice_activity(config, tmp_path):
    one = case("rnn/silero/three_words")
    chunks = speech_chunks(speech(one.inputs["audio"]))
    shapes = {"input": chunks[0].shape, "state": (2, 1, 128)}
    network = bh.import_onnx(next(model_paths(one)), shapes=shapes)
    rate = {"sr": np.asarray(16000, np.int64)} if "sr" in {t.name for t in network.inputs} else {}
    rows = [{"input": chunk, **rate} for chunk in chunks]
    results = run_chain(network, config, tmp_path / "vad.plan", rows, {"state": "stateN"})
    actual = np.concatenate([result["output"].ravel() for result in results])
    check(config, actual, load(one.outputs["output"]), atol=one.atol)
    check(config, results[-1]["stateN"], load(one.outputs["stateN"]), atol=one.atol)


def test_speech_denoiser(config, tmp_path):
    one = case("rnn/dtln/yes")
    network = bh.import_onnx(next(model_paths(one)))
    rows = [{"input_2": frame[None]} for frame in load(one.inputs["input_2"])]
    results = run_chain(
        network, config, tmp_path / "dtln.plan", rows, {"input_3": "tf_op_layer_stack_2"}
    )
    masks = np.concatenate([result["activation_2"] for result in results])
    check(config, masks, load(one.outputs["activation_2"]), atol=one.atol)
    state = results[-1]["tf_op_layer_stack_2"]
    check(config, state, load(one.outputs["tf_op_layer_stack_2"]), atol=one.atol)


def test_character_network_writes_the_same_text(config, tmp_path):
    one = case("rnn/charrnn_shakespeare/the")
    network, embedding, numbers = character_network(DATA / one.models[0])
    letters = {number: letter for letter, number in numbers.items()}
    text = (DATA / one.outputs["text"]).read_text()
    expected = load(one.outputs["logits"])
    # Told what TensorFlow wrote, the logits agree and the largest of each row is the next letter:
    # then the network left to itself writes the same.
    rows = [{"row": embedding[numbers[letter]][None, None]} for letter in text[: len(expected)]]
    states = {"hidden": "last_hidden", "cell": "last_cell"}
    results = run_chain(network, config, tmp_path / "text.plan", rows, states)
    logits = np.stack([result["logits"].ravel() for result in results])
    check(config, logits, expected, atol=one.atol)
    if config.precision == "fp32":
        seed = one.inputs["text"]
        written = "".join(letters[int(row.argmax())] for row in logits[len(seed) - 1 :])
        assert seed + written == text


def test_every_case_named_in_the_table_exists():
    listed = [*CAFFE, *ONNX, *RECURRENT, *UFF, *TENSORFLOW]
    assert all(isinstance(case(case_id), Case) for case_id in listed)
