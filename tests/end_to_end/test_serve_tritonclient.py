"""The unmodified Triton client against the daemon, on SqueezeNet and a plan with two inputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.cases import DATA
from support.serve_plans import row_input, save, two_input_plan
from support.serving import ROOT, serving

http = pytest.importorskip("tritonclient.http")
shared_memory = pytest.importorskip("tritonclient.utils.shared_memory")

SQUEEZENET = DATA / "caffe" / "squeezenet_v1.1"


def edgeplan(*arguments: object, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runtime_edge.cli", *map(str, arguments)],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Plans, an input picture, and what `edgeplan run` makes of it."""
    folder = tmp_path_factory.mktemp("triton")
    edgeplan(
        "build",
        SQUEEZENET / "deploy.prototxt",
        SQUEEZENET / "squeezenet_v1.1_fp16w.caffemodel",
        *("-o", "squeezenet.plan", "--measure", "none", "--threads", 1, "--batch", "1,2"),
        "--no-check",
        cwd=folder,
    )
    save(two_input_plan(), folder / "two.plan")
    pictures = np.load(SQUEEZENET / "four.in.npy").astype(np.float32)
    np.save(folder / "data.npy", pictures[:1])
    edgeplan(
        *("run", "squeezenet.plan", "--input", "data=data.npy", "--output-dir", "out"),
        cwd=folder,
    )
    return folder


@pytest.fixture(scope="module")
def client(folder):
    plans = {"squeezenet": folder / "squeezenet.plan", "two": folder / "two.plan"}
    with serving(folder, plans=plans) as served:
        with http.InferenceServerClient(served.url, concurrency=4) as client:
            yield client
        assert "Traceback" not in served.log()


@pytest.fixture(scope="module")
def picture(folder):
    return np.load(folder / "data.npy")


@pytest.fixture(scope="module")
def expected(folder):
    return np.load(folder / "out" / "prob.npy")


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("squeezenet")
    assert client.is_model_ready("squeezenet", "1")
    assert not client.is_model_ready("squeezenet", "2")
    assert not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("squeezenet")
    assert metadata["inputs"] == [{"name": "data", "datatype": "FP32", "shape": [-1, 3, 227, 227]}]
    assert client.get_model_metadata("two")["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [1, 1000]},
        {"name": "w", "datatype": "FP32", "shape": [2]},
    ]
    assert client.get_model_config("squeezenet")["max_batch_size"] == 2


@pytest.mark.parametrize("is_binary_output", [True, False])
@pytest.mark.parametrize("is_binary_input", [True, False])
def test_results_are_those_of_edgeplan_run(
    client, picture, expected, is_binary_input, is_binary_output
):
    data = http.InferInput("data", list(picture.shape), "FP32")
    data.set_data_from_numpy(picture, binary_data=is_binary_input)
    output = http.InferRequestedOutput("prob", binary_data=is_binary_output)
    result = client.infer("squeezenet", [data], outputs=[output], request_id="17")
    np.testing.assert_array_equal(result.as_numpy("prob"), expected)
    assert result.get_response()["id"] == "17"


def test_a_batch_gives_each_row_its_result(client, picture, expected):
    batch = np.concatenate([picture, np.zeros_like(picture), picture])
    data = http.InferInput("data", list(batch.shape), "FP32")
    data.set_data_from_numpy(batch)
    got = client.infer("squeezenet", [data]).as_numpy("prob")
    # Profiles have kernels of their own: sums of a thousand terms in another order.
    np.testing.assert_allclose(got[[0, 2]], np.concatenate([expected] * 2), atol=1e-6)


def test_two_inputs_json_and_binary_mixed(client):
    x, w = row_input(), np.array([2.5, 1.0], np.float32)
    inputs = [http.InferInput("w", [2], "FP32"), http.InferInput("x", [1, 1000], "FP32")]
    inputs[0].set_data_from_numpy(w, binary_data=False)
    inputs[1].set_data_from_numpy(x)
    np.testing.assert_array_equal(client.infer("two", inputs).as_numpy("y"), x * np.float32(2.5))


def test_asynchronous_calls(client, picture, expected):
    data = http.InferInput("data", list(picture.shape), "FP32")
    data.set_data_from_numpy(picture)
    waiting = [client.async_infer("squeezenet", [data], priority=1 + i % 3) for i in range(6)]
    for one in waiting:
        np.testing.assert_allclose(one.get_result().as_numpy("prob"), expected, atol=1e-6)


def test_shared_memory_for_input_and_output(client, picture, expected):
    regions = []
    try:
        for name, size in (("in", picture.nbytes), ("out", expected.nbytes)):
            regions.append(
                shared_memory.create_shared_memory_region(name, f"/edgeplan_test_{name}", size)
            )
            client.register_system_shared_memory(name, f"/edgeplan_test_{name}", size)
        shared_memory.set_shared_memory_region(regions[0], [picture])
        known = {region["name"] for region in client.get_system_shared_memory_status()}
        assert known == {"in", "out"}
        data = http.InferInput("data", list(picture.shape), "FP32")
        data.set_shared_memory("in", picture.nbytes)
        output = http.InferRequestedOutput("prob")
        output.set_shared_memory("out", expected.nbytes)
        client.infer("squeezenet", [data], outputs=[output])
        got = shared_memory.get_contents_as_numpy(regions[1], np.float32, expected.shape)
        np.testing.assert_array_equal(got, expected)
        data.set_shared_memory("in", picture.nbytes, offset=4)
        with pytest.raises(http.InferenceServerException, match="not inside shared memory"):
            client.infer("squeezenet", [data])
        client.unregister_system_shared_memory("in")
        data.set_shared_memory("in", picture.nbytes)
        with pytest.raises(http.InferenceServerException, match="is not registered"):
            client.infer("squeezenet", [data])
        client.unregister_system_shared_memory()
        assert client.get_system_shared_memory_status() == []
    finally:
        for region in regions:
            shared_memory.destroy_shared_memory_region(region)


def test_shared_memory_that_shrinks_is_an_error_not_a_crash(client, picture):
    shm = f"/edgeplan_test_{os.getpid()}"
    region = shared_memory.create_shared_memory_region("s", shm, picture.nbytes)
    try:
        client.register_system_shared_memory("s", shm, picture.nbytes)
        with open(f"/dev/shm{shm}", "r+b") as file:
            file.truncate(100)
        data = http.InferInput("data", list(picture.shape), "FP32")
        data.set_shared_memory("s", picture.nbytes)
        with pytest.raises(http.InferenceServerException, match="made shorter"):
            client.infer("squeezenet", [data])
        assert client.is_server_live()
    finally:
        client.unregister_system_shared_memory("s")
        shared_memory.destroy_shared_memory_region(region)


def test_statistics_count(client, picture):
    data = http.InferInput("data", list(picture.shape), "FP32")
    data.set_data_from_numpy(picture)
    (before,) = client.get_inference_statistics("squeezenet")["model_stats"]
    for _ in range(3):
        client.infer("squeezenet", [data])
    (after,) = client.get_inference_statistics("squeezenet")["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 3
    success = after["inference_stats"]["success"]
    assert success["count"] - before["inference_stats"]["success"]["count"] == 3
    assert success["ns"] > after["inference_stats"]["compute_infer"]["ns"] > 0
    assert {row["name"] for row in client.get_inference_statistics()["model_stats"]} == {
        "squeezenet",
        "two",
    }


def test_repository(client):
    assert [row["state"] for row in client.get_model_repository_index()] == ["READY", "READY"]
    client.unload_model("two")
    assert not client.is_model_ready("two")
    with pytest.raises(http.InferenceServerException, match="not ready"):
        client.get_model_metadata("two")
    client.load_model("two")
    client.load_model("two")
    assert client.is_model_ready("two")
    with pytest.raises(http.InferenceServerException, match="not known"):
        client.load_model("nothing")


def test_errors_are_exceptions_of_the_client(client, picture):
    data = http.InferInput("data", [1, 3, 227, 226], "FP32")
    data.set_data_from_numpy(picture[..., :226].copy())
    with pytest.raises(http.InferenceServerException, match="does not take") as caught:
        client.infer("squeezenet", [data])
    assert caught.value.status() == "400"
    data = http.InferInput("data", list(picture.shape), "FP32")
    data.set_data_from_numpy(picture)
    with pytest.raises(http.InferenceServerException, match="not known") as caught:
        client.infer("nothing", [data])
    assert caught.value.status() == "404"
