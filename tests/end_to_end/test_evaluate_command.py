"""`edgeplan calibrate` and `edgeplan evaluate` on pictures and arrays, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from support.cases import DATA, load

import builder_host as bh
from builder_host.accuracy import classification
from builder_host.accuracy.classification import evaluate_plan
from builder_host.accuracy.labels import labels_of, load_classes
from builder_host.calibration.batches import open_data
from builder_host.calibration.preprocessing import Preprocessing
from builder_host.calibration.table import load_table
from builder_host.measure.local import load_engine
from builder_host.network.network import Network
from planformat.reader import open_plan
from runtime_edge.cli import main
from runtime_edge.errors import RuntimeEdgeError

LENET = [str(DATA / "caffe/lenet" / f) for f in ("lenet.prototxt", "lenet_iter_9000.caffemodel")]
DIGITS = DATA / "images/digits"
TRUE = list(range(10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float plan of LeNet with batch 4, and how pictures become its input."""
    place = tmp_path_factory.mktemp("evaluate")
    network = bh.import_caffe(*LENET, shapes={"data": (4, 1, 28, 28)})
    config = bh.BuilderConfig(measure="none", artifact_dir=place / "artifacts", num_threads=1)
    bh.build(network, config).save(place / "lenet.plan")
    (place / "p.toml").write_text('channels = "gray"\nscale = 0.00390625\n')
    pictures = place / "pictures"
    pictures.mkdir()
    for digit in TRUE:
        Image.open(DIGITS / f"{digit}.pgm").save(pictures / f"digit{digit}.png")
    (place / "labels.txt").write_text(
        "# picture class\n" + "".join(f"digit{d}.png {d}\n" for d in TRUE)
    )
    return place


def evaluate(folder, capsys, *options):
    status = main(["evaluate", str(folder / "lenet.plan"), "--json", *map(str, options)])
    printed = capsys.readouterr()
    return (json.loads(printed.out) if status == 0 else None), printed.err


def test_folder_of_pictures_with_labels_in_a_file(folder, capsys):
    result, _ = evaluate(
        folder, capsys, "--images", folder / "pictures", "--labels", folder / "labels.txt",
        "--preprocessing", folder / "p.toml", "--predictions", folder / "best.json",
    )  # fmt: skip
    assert result["num_samples"] == 10
    assert result["predictions"] == json.loads((folder / "best.json").read_text())
    right = sum(a == b for a, b in zip(result["predictions"], TRUE, strict=True))
    assert right >= 9
    assert result["top1"] == right / 10
    assert result["top1"] <= result["top5"] <= 1.0
    assert result["mean_us"] > 0


def test_labels_by_name_and_in_json(folder, capsys):
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    (folder / "classes.txt").write_text("\n".join(names))
    (folder / "labels.json").write_text(json.dumps({f"digit{d}.png": names[d] for d in TRUE}))
    shared = ("--images", folder / "pictures", "--preprocessing", folder / "p.toml")
    plain, _ = evaluate(folder, capsys, *shared, "--labels", folder / "labels.txt")
    named, _ = evaluate(
        folder, capsys, *shared, "--labels", folder / "labels.json",
        "--classes", folder / "classes.txt",
    )  # fmt: skip
    assert named["predictions"] == plain["predictions"]
    assert named["top1"] == plain["top1"]
    _, error = evaluate(folder, capsys, *shared, "--labels", folder / "labels.json")
    assert "class 'zero' is no number and not in --classes" in error


def test_arrays_and_a_last_batch_that_is_not_full(folder, capsys):
    images = load("images/mnist/t10k_first1000.npz#images")[:30].reshape(-1, 1, 28, 28)
    np.savez(folder / "x.npz", x=images.astype(np.float32) / 256)
    labels = DATA / "images/mnist/t10k_first1000.npz"
    result, _ = evaluate(folder, capsys, "--images", folder / "x.npz", "--labels", labels)
    assert result["num_samples"] == 30
    expected = load("images/mnist/t10k_first1000.npz#labels")[:30]
    assert result["top1"] == np.mean(np.array(result["predictions"]) == expected)
    assert result["top1"] > 0.95
    few, _ = evaluate(
        folder, capsys, "--images", folder / "x.npz", "--labels", labels, "--samples", 5
    )
    assert few["predictions"] == result["predictions"][:5]


def test_what_is_refused(folder, capsys):
    pictures = ("--images", folder / "pictures")
    (folder / "short.txt").write_text("digit0.png 0\n")
    (folder / "bad.txt").write_text("justoneword\n")
    for options, message in (
        ((*pictures, "--labels", folder / "labels.txt"), "the network takes (1, 28, 28)"),
        ((*pictures, "--labels", folder / "short.txt"), "no label for picture 'digit1.png'"),
        (
            (*pictures, "--labels", folder / "bad.txt"),
            "bad.txt: 1 labels for 10 samples; expected a class per line",
        ),
        ((*pictures, "--labels", folder / "none.txt"), "cannot read the labels"),
        (("--labels", folder / "labels.txt"), "--data is missing"),
    ):
        result, error = evaluate(folder, capsys, *options)
        assert result is None
        assert message in error
    options = (*pictures, "--labels", folder / "labels.txt", "--preprocessing", folder / "p.toml")
    _, error = evaluate(folder, capsys, *options, "--output", "nope")
    assert "no output 'nope'; the plan has prob" in error


def test_a_model_is_built_and_compared_with_a_plan(folder, capsys, tmp_path):
    """Pictures in a folder per class; the plan and the model are the same network in float32."""
    for digit in TRUE:
        (tmp_path / str(digit)).mkdir()
        Image.open(DIGITS / f"{digit}.pgm").save(tmp_path / str(digit) / "a.png")
    shared = ["--data", tmp_path, "--preprocessing", folder / "p.toml"]
    model = ["--weights", LENET[1], "--shapes", "data:1x1x28x28", "--json"]
    plain, _ = evaluate(folder, capsys, *shared)
    assert plain["num_samples"] == 10
    assert plain["top1"] >= 0.9
    assert plain["against"] is None
    assert main(["evaluate", LENET[0], *map(str, [*shared, *model])]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["predictions"] == plain["predictions"]
    _, error = evaluate(folder, capsys, *shared, "--against", *LENET[:1], *model)
    assert "both must be alike" in error  # the plan takes batches of 4
    model[3] = "data:4x1x28x28"
    found, _ = evaluate(folder, capsys, *shared, "--against", *LENET[:1], *model)
    assert found["top1"] is None
    against = found["against"]
    assert (against["same"], against["same_confident"]) == (1.0, 1.0)
    assert against["num_confident"] >= 9
    assert against["expected_change"] == 0.0
    _, error = evaluate(folder, capsys, *shared, "--label-offset", "1")
    assert "class 10 is not among the 10 of output 'prob', 0 to 9" in error


def test_agreement_with_another_plan(folder):
    """What INT8 with far too small ranges loses, and what float32 lets expect of it."""
    images = load("images/mnist/t10k_first1000.npz#images")[:200].reshape(-1, 1, 28, 28)
    labels = load("images/mnist/t10k_first1000.npz#labels")[:200].tolist()
    network = bh.import_caffe(*LENET, shapes={"data": (1, 1, 28, 28)})
    config = {"measure": "none", "artifact_dir": folder / "artifacts", "num_threads": 1}
    ranges = {"data": 1.0, "conv1": 3.6, "pool1": 3.6, "conv2": 0.3, "ip1": 10.5}
    good = bh.build(network, bh.BuilderConfig(**config)).plan
    bad = bh.build(
        network, bh.BuilderConfig(precision="int8", dynamic_ranges=ranges, **config)
    ).plan
    samples = (images / 256).astype(np.float32)
    exact = evaluate_plan(good, samples, labels)
    found = evaluate_plan(bad, samples, labels, against=good)
    beside = found.against
    assert beside.top1 == exact.top1
    pairs = list(zip(exact.predictions, found.predictions, labels, strict=True))
    assert beside.same == sum(a == b for a, b, _ in pairs) / 200
    assert beside.lost == sum(a == y != b for a, b, y in pairs) > 0
    assert beside.gained == sum(b == y != a for a, b, y in pairs)
    assert found.top1 == pytest.approx(exact.top1 - (beside.lost - beside.gained) / 200)
    assert -(1 - beside.same) <= beside.expected_change < 0
    assert "lost" in found.text()
    assert "no measurement" in found.text()


def test_paths_with_folders_and_class_lists(tmp_path):
    (tmp_path / "n01").mkdir()
    for name in ("n01/a b.png", "c.png"):
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / name)
    network = Network()
    network.add_input("x", (1, 1, 2, 2))
    samples = open_data(tmp_path, network, preprocessing=Preprocessing(channels="gray"))
    labels = tmp_path / "l.csv"
    labels.write_text("n01/a b.png, 7\nc.png,3\n")
    found = {p.name: v for p, v in zip(samples.paths, labels_of(samples, labels), strict=True)}
    assert found == {"a b.png": 7, "c.png": 3}
    names = tmp_path / "names.json"
    for text in ('["a", 3]', '{"0": "a", "2": "b"}', "[]", "3"):
        names.write_text(text)
        with pytest.raises(bh.BuilderError, match="expected a list of class names"):
            load_classes(names)


def test_more_or_fewer_samples_than_labels(folder):
    from planformat.reader import open_plan

    with open_plan(folder / "lenet.plan") as opened:
        samples = np.zeros((3, 1, 28, 28), np.float32)
        for labels in ([1, 2], [1, 2, 3, 4]):
            with pytest.raises(bh.BuilderError, match="labels"):
                evaluate_plan(opened.plan, samples, labels)


def test_calibrate_writes_a_table_from_pictures(folder, capsys):
    table = folder / "t.cache"
    command = [
        "calibrate", *LENET, "--shapes", "data:2x1x28x28", "-o", str(table),
        "--data", str(folder / "pictures"), "--preprocessing", str(folder / "p.toml"),
        "--calibrator", "min-max", "--json",
    ]  # fmt: skip
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["header"] == "TRT-8601-MinMaxCalibration"
    assert load_table(table).ranges == result["ranges"]
    assert result["ranges"]["data"] == pytest.approx(255 / 256, rel=1e-3)
    assert main([*command[:-1], "--header", "TRT-7103-EntropyCalibration2", "--samples", "3"]) == 0
    assert table.read_text().startswith("TRT-7103-EntropyCalibration2\ndata: ")
    assert main([*command[:7], "--calibrator", "mse"]) == 1
    assert "--data is missing" in capsys.readouterr().err


def test_a_plan_without_a_context_is_unloaded(folder, monkeypatch):
    closed = []

    def without_memory(plan):
        engine = load_engine(plan)
        close = engine.close
        monkeypatch.setattr(engine, "create_context", refuse)
        monkeypatch.setattr(engine, "close", lambda: closed.append(close()))
        return engine

    def refuse():
        raise RuntimeEdgeError("no memory for a context")

    monkeypatch.setattr(classification, "load_engine", without_memory)
    with (
        open_plan(folder / "lenet.plan") as opened,
        pytest.raises(RuntimeEdgeError, match="no memory for a context"),
    ):
        evaluate_plan(opened.plan, [np.zeros((4, 1, 28, 28), np.float32)], None)
    assert len(closed) == 1
