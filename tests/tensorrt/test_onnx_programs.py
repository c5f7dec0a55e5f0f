"""Whole programs written for `import tensorrt as trt`, run with that one line changed.

Their results are compared with onnxruntime on the same inputs.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from support import pycuda_cpu
from support.cases import DATA
from support.onnx_networks import resnet18, yolov3_tiny

pytest.importorskip("PIL.Image", reason="the programs read pictures with pillow")
PROGRAMS = Path(__file__).parent / "programs"
LABELS = DATA / "labels" / "imagenet-simple-labels.json"
GOLDFISH = 1
QUICK = "0"  # builder_optimization_level: no timing


@pytest.fixture
def program(monkeypatch):
    """A function that imports a program by name after changing its one import line."""
    monkeypatch.setenv("EDGEPLAN_TARGET", "host-cpu")
    with pycuda_cpu.installed():

        def imported(name):
            source = (PROGRAMS / f"{name}.py").read_text()
            assert source.count("import tensorrt as trt\n") == source.count("tensorrt as trt") == 1
            changed = source.replace(
                "import tensorrt as trt\n", "from builder_host import tensorrt as trt\n"
            )
            module = ModuleType(name)
            exec(compile(changed, f"{name}.py", "exec"), module.__dict__)
            return module

        yield imported


def reference(model, values):
    """Outputs of onnxruntime in the model's order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options)
    return session.run(None, {session.get_inputs()[0].name: values})


def best(scores, count=5):
    return np.argsort(-np.asarray(scores, np.float32).ravel(), kind="stable")[:count].tolist()


def test_a_resnet_classifies_as_onnxruntime_does(program, tmp_path, capfd):
    onnx.save(resnet18(128), tmp_path / "resnet18.onnx")
    files = [
        tmp_path / "resnet18.onnx",
        DATA / "images/goldfish.jpg",
        LABELS,
        tmp_path / "r.engine",
    ]
    picture, logits = program("onnx_resnet").main([*map(str, files), "imagenet", QUICK])
    [wanted] = reference(files[0], picture[None])
    # 18 layers deep, float32 sums of up to 4,608 products in different orders.
    np.testing.assert_allclose(logits, wanted.ravel(), atol=2e-5 * np.abs(wanted).max())
    assert best(logits) == best(wanted)
    told = capfd.readouterr()
    printed = [int(line.split()[0]) for line in told.out.splitlines()]
    assert printed == best(wanted)
    assert "FP16: this CPU target has no float16 kernels" in told.err + told.out


@pytest.mark.parametrize(
    ("model", "scaling", "tolerance"),
    [("SqueezeNet_fp16", "caffe", 0.02), ("shufflenet-v2-12-int8", "imagenet", 0.75)],
)
def test_trained_networks_recognise_a_goldfish(model, scaling, tolerance, program, tmp_path, capfd):
    """Tolerances are those of the reference cases of these float16 and INT8 networks."""
    file = DATA / "onnx/classify" / f"{model}.onnx"
    files = [file, DATA / "images/goldfish.jpg", LABELS, tmp_path / "x.engine"]
    picture, scores = program("onnx_resnet").main([*map(str, files), scaling, QUICK])
    dtype = np.float16 if "fp16" in model else np.float32
    [wanted] = reference(file, picture[None].astype(dtype))
    np.testing.assert_allclose(scores, wanted.ravel(), atol=tolerance)
    assert best(scores, 1) == best(wanted, 1) == [GOLDFISH]
    assert capfd.readouterr().out.splitlines()[0].startswith("   1 goldfish: ")


def test_a_broken_model_ends_in_the_programs_error_loop(program, tmp_path, capfd):
    model = resnet18(64)
    model.graph.node[3].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "x.onnx")
    files = [tmp_path / "x.onnx", DATA / "images/goldfish.jpg", LABELS, tmp_path / "x.engine"]
    assert program("onnx_resnet").main([*map(str, files), "imagenet", QUICK]) is None
    told = capfd.readouterr().out
    assert f"ERROR: cannot parse {files[0]}" in told
    assert "NoSuchOperator" in told
    assert not files[3].exists()


def test_yolo_finds_the_boxes_that_onnxruntime_finds(program, tmp_path, capfd):
    onnx.save(yolov3_tiny(224, divisor=2), tmp_path / "yolo.onnx")
    yolo = program("onnx_yolov3")
    arguments = [tmp_path / "yolo.onnx", DATA / "images/wolves.jpg", tmp_path / "y.engine", QUICK]
    pixels, outputs, rows = yolo.main([*map(str, arguments)])
    wanted = reference(arguments[0], pixels)
    assert [output.shape for output in outputs] == [(1, 255, 7, 7), (1, 255, 14, 14)]
    for output, right in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(output, right, atol=2e-5 * np.abs(right).max())
    with yolo.Image.open(arguments[1]) as picture:
        picture = picture.convert("RGB")
    _, scale, border = yolo.letterboxed(picture, 224, 224)
    boxes = yolo.postprocessed(wanted, (224, 224), picture, scale, border)
    assert len(boxes) > 10
    assert [row[0] for row in rows] == [row[0] for row in boxes]
    np.testing.assert_allclose([r[1:] for r in rows], [b[1:] for b in boxes], rtol=1e-4, atol=1e-2)
    again = yolo.main([*map(str, arguments)])[2]  # from the engine's file
    assert again == rows
    assert "Reading engine from file" in capfd.readouterr().out


def test_a_trained_detector_finds_dog_bicycle_and_car(program, capfd):
    model, picture = DATA / "onnx/fastestdet/FastestDet.onnx", DATA / "onnx/fastestdet/dog.in.npy"
    detector = program("fastestdet")
    output, rows = detector.main([str(model), str(picture), QUICK])
    [wanted] = reference(model, np.load(picture).astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(output, wanted, atol=1e-3)
    boxes = detector.detections(wanted)
    assert [row[0] for row in rows] == [row[0] for row in boxes]
    np.testing.assert_allclose([r[1:] for r in rows], [b[1:] for b in boxes], atol=2e-3)
    names = [line.split()[0] for line in capfd.readouterr().out.splitlines()]
    assert {"dog", "bicycle", "car"} <= {*names}
