"""Weights out of plans and into them again: the same bytes, other weights, and what is refused."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from support.cases import DATA, case, model_paths
from support.commands import edgeplan
from support.cuda_toolkits import need_toolkit

import builder_host as bh
from builder_host.cli import refit as command
from builder_host.errors import RefitError
from builder_host.importers.model_file import import_model_file
from builder_host.refit import refit as refit_module
from builder_host.refit.refit import refit_plan
from planformat.details import PlanDetails, encode_details, plan_details
from planformat.errors import PlanError
from planformat.reader import read_plan
from planformat.stripped import strip_plan
from planformat.writer import plan_bytes

LENET = (DATA / "caffe/lenet/lenet.prototxt", DATA / "caffe/lenet/lenet_iter_9000.caffemodel")
SQUEEZENET = DATA / "caffe/squeezenet_v1.1"
FAST = ("--measure", "none", "--no-check", "--threads", 1)
SEED = 5


def save_model(
    path: Path,
    *,
    seed: int = SEED,
    scale: float = 0.25,
    limit: float = 40.0,
    side: int = 3,
    bias: np.ndarray | None = None,
) -> Path:
    """Two convolutions, a product with a constant, and a clip; `seed` makes the weights.

    side: of the second kernel; bias: of both convolutions instead of random values.
    """
    rng = np.random.default_rng(seed)
    values = {
        "w1": rng.standard_normal((24, 3, 3, 3)),
        "b1": rng.standard_normal(24),
        "w2": rng.standard_normal((24, 24, side, side)) / 8,
        "b2": rng.standard_normal(24),
    }
    if bias is not None:
        values["b1"] = values["b2"] = bias
    values |= {"s": np.array(scale), "lo": np.array(-limit), "hi": np.array(limit)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[side // 2] * 4),
        helper.make_node("Mul", ["c2", "s"], ["m"], "scaled"),
        helper.make_node("Clip", ["m", "lo", "hi"], ["y"], "clipped"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 24, 16, 16])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path)
    return path


def built(path: Path, **options: object) -> bytes:
    """A plan for one thread of this CPU (unless options say otherwise), not timed."""
    config = bh.BuilderConfig(**{"measure": "none", "num_threads": 1, **options})  # type: ignore[arg-type]
    return bh.build(import_model_file(path), config).to_bytes()


def test_lenet_comes_back_with_its_signature(tmp_path):
    """Two profiles, by the commands, as a user does it."""
    edgeplan("keygen", "release", cwd=tmp_path)
    options = (*FAST, "--batch", "1,4", "--sign", "release.key")
    edgeplan("build", *LENET, "-o", "whole.plan", *options, cwd=tmp_path)
    done = edgeplan("strip", "whole.plan", "-o", "stripped.plan", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert [row["name"] for row in told["needs"]] == [path.name for path in LENET]
    whole, stripped = (tmp_path / "whole.plan").read_bytes(), tmp_path / "stripped.plan"
    assert told["stripped_bytes"] == len(read_plan(whole).weights) > 1_700_000
    assert stripped.stat().st_size == told["bytes"] < len(whole) - told["stripped_bytes"] + 5000

    done = edgeplan("run", "stripped.plan", cwd=tmp_path, status=1)
    assert "its weights were stripped; put them in again: edgeplan refit" in done.stderr
    done = edgeplan("verify", "stripped.plan", "--key", "release.pub", cwd=tmp_path)
    assert "signature of the whole plan: good" in done.stdout
    done = edgeplan("inspect", "stripped.plan", cwd=tmp_path)
    assert f"weights: {told['stripped_bytes']:,} bytes" in done.stdout
    assert "stripped: edgeplan refit puts them in" in done.stdout
    done = edgeplan("explain", "stripped.plan", cwd=tmp_path)
    assert "variant 0 (cpu): runs there" in done.stdout
    assert "that holds once 'edgeplan refit' has put them in" in done.stdout

    options = ("-o", "back.plan", "--identical")
    done = edgeplan("refit", "stripped.plan", *LENET, *options, cwd=tmp_path)
    assert "the weights that it had before" in done.stdout
    assert (tmp_path / "back.plan").read_bytes() == whole
    edgeplan("verify", "back.plan", "--key", "release.pub", cwd=tmp_path)


def test_squeezenet_comes_back():
    files = (SQUEEZENET / "deploy.prototxt", SQUEEZENET / "squeezenet_v1.1_fp16w.caffemodel")
    config = bh.BuilderConfig(measure="none", num_threads=2, is_checked=False)
    whole = bh.build(import_model_file(*files), config).to_bytes()
    refitted = refit_plan(strip_plan(whole), import_model_file(*files))
    assert refitted.is_same
    assert refitted.data == whole


def test_a_plan_built_without_weights_takes_the_trained_ones():
    """Caffe networks without a caffemodel get random weights, to be tuned with."""
    config = bh.BuilderConfig(measure="none", num_threads=1)
    untrained = bh.build(import_model_file(LENET[0]), replace(config, is_checked=False)).to_bytes()
    trained = import_model_file(*LENET)
    assert refit_plan(untrained, trained).data == bh.build(trained, config).to_bytes()


def test_a_uff_network_with_channels_last_comes_back(tmp_path):
    """Two profiles; the order of the images is read from the plan."""
    model, *_ = model_paths(case("uff/allcnn/digits"))
    options = ("--uff-input", "input_layer_1,28,28,1", "--uff-nhwc", "--batch", "1,2", *FAST)
    edgeplan("build", model, "-o", "whole.plan", *options, cwd=tmp_path)
    edgeplan("strip", "whole.plan", "-o", "stripped.plan", cwd=tmp_path)
    edgeplan("refit", "stripped.plan", model, "-o", "back.plan", "--identical", cwd=tmp_path)
    assert (tmp_path / "back.plan").read_bytes() == (tmp_path / "whole.plan").read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_plan_for_a_gpu_comes_back_without_its_compiler(tmp_path, precision):
    need_toolkit()
    path = save_model(tmp_path / "model.onnx")
    whole = built(path, target="jetson-agx-orin", precision=precision)
    assert refit_plan(strip_plan(whole), import_model_file(path)).data == whole
    other = save_model(tmp_path / "model.onnx", seed=6)
    assert refit_plan(whole, import_model_file(other)).data == built(
        other, target="jetson-agx-orin", precision=precision
    )


@pytest.mark.parametrize("is_stripped", [False, True])
def test_the_command_reads_and_verifies_the_plan_once(tmp_path, monkeypatch, is_stripped):
    path = save_model(tmp_path / "model.onnx")
    whole = built(path, is_checked=False)
    (tmp_path / "in.plan").write_bytes(strip_plan(whole) if is_stripped else whole)
    reads = []

    def counted(name):
        read = getattr(refit_module, name)

        def wrapper(data, **options):
            reads.append(name)
            return read(data, **options)

        monkeypatch.setattr(refit_module, name, wrapper)

    counted("read_plan")
    counted("read_stripped")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    out = tmp_path / "out.plan"
    args = parser.parse_args([str(tmp_path / "in.plan"), str(path), "-o", str(out)])
    args.json = False
    assert command.run(args) == 0
    assert reads == ["read_stripped" if is_stripped else "read_plan"]
    assert out.read_bytes() == whole


def test_a_model_whose_name_is_no_text(tmp_path):
    path = save_model(tmp_path / os.fsdecode(b"a\xff\x1b.onnx"))
    whole = built(path, is_checked=False)
    (file,) = plan_details(read_plan(whole)).recipe.files
    assert file.name == "a\ufffd\ufffd.onnx"
    assert refit_plan(strip_plan(whole), import_model_file(path)).data == whole


def test_external_data_is_named_and_hashed(tmp_path):
    """The weights are not in the model: its own bytes say nothing of them."""
    plain = save_model(tmp_path / "plain.onnx")
    path = tmp_path / "model.onnx"
    (tmp_path / "parts").mkdir()
    model = onnx.load(plain)
    for tensor in model.graph.initializer:
        if tensor.name in ("w1", "w2"):
            location = f"parts/{tensor.name}.bin"
            set_external_data(tensor, location)
            (tmp_path / location).write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
    onnx.save(model, path)
    edgeplan("build", path, "-o", "whole.plan", *FAST, cwd=tmp_path)
    whole = (tmp_path / "whole.plan").read_bytes()
    files = [path, tmp_path / "parts/w1.bin", tmp_path / "parts/w2.bin"]
    expected = [(f.name, f.stat().st_size, sha256(f.read_bytes()).hexdigest()) for f in files]
    named = plan_details(read_plan(whole)).recipe.files
    assert [(f.name, f.num_bytes, f.sha256) for f in named] == expected
    done = edgeplan("strip", "whole.plan", "-o", "stripped.plan", "--json", cwd=tmp_path)
    assert [row["name"] for row in json.loads(done.stdout)["needs"]] == [f.name for f in files]
    edgeplan("refit", "stripped.plan", path, "-o", "back.plan", "--identical", cwd=tmp_path)
    assert (tmp_path / "back.plan").read_bytes() == whole

    data = np.fromfile(files[1], np.float32)
    (data + 1).tofile(files[1])
    edgeplan("refit", "whole.plan", path, "-o", "other.plan", "--no-check", cwd=tmp_path)
    refitted = plan_details(read_plan((tmp_path / "other.plan").read_bytes())).recipe.files
    assert refitted[0] == named[0]
    assert refitted[1].sha256 == sha256(files[1].read_bytes()).hexdigest() != named[1].sha256
    files[2].unlink()
    network = import_model_file(path, outputs=["c1"])  # what is not read need not be there
    assert [file.name for file in network.origin.files] == ["model.onnx", "w1.bin"]


def test_other_weights_give_what_a_build_with_them_gives(tmp_path):
    whole = built(save_model(tmp_path / "model.onnx"))
    other = save_model(tmp_path / "model.onnx", seed=6)
    expected = built(other)
    for plan in (whole, strip_plan(whole)):
        refitted = refit_plan(plan, import_model_file(other))
        assert not refitted.is_same
        assert refitted.data == expected
        assert set(refitted.accuracy) == {"y"}
        assert refitted.accuracy["y"] < 1e-5


def test_int8_comes_back_and_takes_weights_of_the_same_scales(tmp_path):
    ranges = {"x": 2.0, "c1": 20.0, "r1": 20.0, "c2": 20.0, "m": 5.0, "y": 5.0}
    path = save_model(tmp_path / "model.onnx")
    options = {"precision": "int8", "dynamic_ranges": ranges}
    whole = built(path, **options)
    assert refit_plan(strip_plan(whole), import_model_file(path)).data == whole
    other = save_model(tmp_path / "model.onnx", seed=6)
    assert refit_plan(whole, import_model_file(other)).data == built(other, **options)


def test_other_weights_need_another_signature(tmp_path):
    edgeplan("keygen", "release", cwd=tmp_path)
    save_model(tmp_path / "model.onnx")
    save_model(tmp_path / "other.onnx", seed=6)
    options = (*FAST, "--sign", "release.key")
    edgeplan("build", "model.onnx", "-o", "whole.plan", *options, cwd=tmp_path)
    done = edgeplan("refit", "whole.plan", "other.onnx", "-o", "new.plan", cwd=tmp_path)
    assert "its signature was of the old weights: sign it again" in done.stdout
    done = edgeplan("verify", "new.plan", "--key", "release.pub", cwd=tmp_path, status=1)
    assert "a signature is required but the plan has none" in done.stderr
    options = ("-o", "new.plan", "--sign", "release.key")
    edgeplan("refit", "whole.plan", "other.onnx", *options, cwd=tmp_path)
    edgeplan("verify", "new.plan", "--key", "release.pub", "--device", cwd=tmp_path)
    options = ("-o", "not.plan", "--identical")
    done = edgeplan("refit", "whole.plan", "other.onnx", *options, cwd=tmp_path, status=1)
    assert "are not those that the plan was built with" in done.stderr
    assert not (tmp_path / "not.plan").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"limit": 41.0},
            r"layer 'c2': epilogue in the plan: .*0x1\.40.*, in the model: .*0x1\.48",
        ),
        (
            {"side": 5},
            r"layer 'c2': parameters in the plan: .*\(1, 1\).*, in the model: .*\(2, 2\)",
        ),
    ],
)
def test_what_is_compiled_in_is_named_by_its_layer(tmp_path, changes, message):
    whole = built(save_model(tmp_path / "model.onnx"), is_checked=False)
    other = save_model(tmp_path / "other.onnx", **changes)
    with pytest.raises(RefitError, match=message):
        refit_plan(whole, import_model_file(other))


def test_a_scale_that_is_folded_into_weights_may_change(tmp_path):
    whole = built(save_model(tmp_path / "model.onnx"))
    other = save_model(tmp_path / "model.onnx", scale=0.5)
    assert refit_plan(whole, import_model_file(other)).data == built(other)


def test_constants_that_were_equal_and_are_not(tmp_path):
    path = save_model(tmp_path / "model.onnx", scale=1.0, bias=np.arange(24.0))
    whole = built(path, is_checked=False)
    assert refit_plan(strip_plan(whole), import_model_file(path)).is_same
    other = save_model(tmp_path / "other.onnx")
    with pytest.raises(RefitError, match=r"layers 'c1' and 'c2' have a constant in common"):
        refit_plan(whole, import_model_file(other))


def test_source_of_another_generator_is_refused(tmp_path):
    path = save_model(tmp_path / "model.onnx")
    plan = read_plan(built(path, is_checked=False))
    details = plan_details(plan)
    (rows,) = details.variants[0]
    first = replace(rows.operations[0], source_sha256="0" * 64)
    rows = replace(rows, operations=(first, *rows.operations[1:]))
    changed = encode_details(PlanDetails(((rows,),), details.recipe))
    with pytest.raises(RefitError, match=r"layer 'c1': its source is not the one"):
        refit_plan(plan_bytes(replace(plan, details=changed)), import_model_file(path))


def test_plans_that_do_not_say_how_they_were_built(tmp_path):
    golden = Path(__file__).parents[1] / "golden" / "sample_v1.0.plan"
    done = edgeplan("strip", golden, "-o", "x.plan", cwd=tmp_path, status=1)
    assert "does not say what it was built from" in done.stderr
    path = save_model(tmp_path / "model.onnx")
    bare = plan_bytes(replace(read_plan(built(path, is_checked=False)), details=b""))
    with pytest.raises(RefitError, match="does not say how it was built"):
        refit_plan(bare, import_model_file(path))


def test_profiles_must_be_given(tmp_path):
    edgeplan("build", *LENET, "-o", "two.plan", *FAST, "--batch", "1,4", cwd=tmp_path)
    with pytest.raises(RefitError, match="the plan has the profiles batch1, batch4"):
        refit_plan((tmp_path / "two.plan").read_bytes(), import_model_file(*LENET))


def test_a_damaged_stripped_plan_is_refused(tmp_path):
    path = save_model(tmp_path / "model.onnx")
    stripped = bytearray(strip_plan(built(path, is_checked=False)))
    stripped[len(stripped) // 2] ^= 1
    with pytest.raises(PlanError, match="SHA-256 is"):
        refit_plan(bytes(stripped), import_model_file(path))
