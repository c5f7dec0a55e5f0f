"""The unmodified Triton client over gRPC, and the wire format against the client's own."""

from __future__ import annotations

import queue
import warnings

import numpy as np
import pytest
from support.serve_plans import row_input, save, scale_plan, slow_plan, two_input_plan
from support.serving import serving

pytest.importorskip("grpc")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the client's generated code may be of another protobuf
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is missing")
    shared_memory = pytest.importorskip("tritonclient.utils.shared_memory")
    from tritonclient.grpc import model_config_pb2, service_pb2

X = row_input()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpc")
    save(scale_plan((1, 2, 4)), folder / "scale.plan")
    save(two_input_plan(), folder / "two.plan")
    save(slow_plan(3000), folder / "slow.plan")
    plans = {name: folder / f"{name}.plan" for name in ("scale", "two", "slow")}
    with serving(folder, "--grpc", "127.0.0.1:0", plans=plans) as served:
        yield served
        assert "Traceback" not in served.log()


@pytest.fixture(scope="module")
def client(served):
    with triton.InferenceServerClient(served.info["grpc"]) as client:
        yield client


def tensor(name, array):
    made = triton.InferInput(name, list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return made


def test_the_shipped_descriptor_is_that_of_the_proto():
    pytest.importorskip("grpc_tools")
    import importlib.util
    from importlib import resources
    from pathlib import Path

    path = Path(__file__).resolve().parents[2] / "scripts" / "make_grpc_service.py"
    spec = importlib.util.spec_from_file_location("make_grpc_service", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    shipped = resources.files("runtime_edge.serve").joinpath("grpc_service.binpb").read_bytes()
    assert script.compile_service() == shipped


def test_every_field_is_that_of_the_protocol():
    from runtime_edge.serve.grpc_messages import SERVICE, pool

    files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    theirs = {d.name: d for file in files for d in file.message_types_by_name.values()}
    ours = pool().FindServiceByName(SERVICE)
    their_methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in ours.methods:
        their = their_methods[method.name]
        assert (method.client_streaming, method.server_streaming) == (
            their.client_streaming,
            their.server_streaming,
        )
    compared = 0
    for message in ours.file.message_types_by_name.values():
        compared += compare(message, theirs[message.name])
    assert compared > 90
    types = ours.file.enum_types_by_name["DataType"].values_by_name
    their_types = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    assert {k: v.number for k, v in types.items()} == {k: v.number for k, v in their_types.items()}


def compare(ours, theirs):
    """Compare all fields that we have; returns how many."""
    for field in ours.fields:
        their = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (
            their.number,
            their.type,
            their.is_repeated,
        ), field.full_name
        if field.message_type is not None:
            assert field.message_type.name == their.message_type.name
    nested = sum(compare(n, theirs.nested_types_by_name[n.name]) for n in ours.nested_types)
    return len(ours.fields) + nested


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scale", "1")
    assert client.get_server_metadata().name == "edgeplan"
    metadata = client.get_model_metadata("two", as_json=True)
    assert [row["name"] for row in metadata["inputs"]] == ["x", "w"]
    assert client.get_model_config("scale").config.max_batch_size == 4
    assert [row.state for row in client.get_model_repository_index().models] == ["READY"] * 3
    with pytest.raises(triton.InferenceServerException, match="not known") as caught:
        client.is_model_ready("nothing") or client.get_model_metadata("nothing")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_inference_is_that_of_http(served, client):
    for rows in (1, 3, 5):
        x = row_input(rows=rows)
        result = client.infer("scale", [tensor("x", x)], request_id="9")
        assert result.get_response().id == "9"
        np.testing.assert_array_equal(result.as_numpy("y"), served.infer("scale", x).output())
    w = np.array([4.0, 0.0], np.float32)
    got = client.infer("two", [tensor("w", w), tensor("x", X)]).as_numpy("y")
    np.testing.assert_array_equal(got, X * 4)


def test_typed_contents(client):
    request = service_pb2.ModelInferRequest(model_name="two")
    for name, array in (("x", X), ("w", np.array([2.0, 0.0], np.float32))):
        entry = request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        entry.contents.fp32_contents.extend(array.reshape(-1).tolist())
    response = client._client_stub.ModelInfer(request)
    np.testing.assert_array_equal(
        np.frombuffer(response.raw_output_contents[0], np.float32), X[0] * 2
    )


def test_streams_and_asynchronous_calls(client):
    answers: queue.Queue = queue.Queue()
    client.async_infer(
        "scale", [tensor("x", X)], lambda result, error: answers.put((result, error))
    )
    result, error = answers.get(timeout=60)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), X * np.float32(0.5))
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(5):
        client.async_stream_infer("scale", [tensor("x", X + number)])
    client.async_stream_infer("nothing", [tensor("x", X)])
    for number in range(5):
        result, error = answers.get(timeout=60)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("y"), (X + number) * np.float32(0.5))
    result, error = answers.get(timeout=60)
    assert "not known" in str(error)
    client.stop_stream()


def test_the_callers_deadline_is_the_requests(client):
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("slow", [tensor("x", X)], client_timeout=0.005)
    assert caught.value.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")
    with pytest.raises(triton.InferenceServerException, match="deadline") as caught:
        client.infer("slow", [tensor("x", X)], timeout=100)
    assert caught.value.status() == "StatusCode.UNAVAILABLE"


def test_shared_memory_statistics_and_repository(client):
    region = shared_memory.create_shared_memory_region("g", "/edgeplan_test_g", 2 * X.nbytes)
    try:
        shared_memory.set_shared_memory_region(region, [X])
        client.register_system_shared_memory("g", "/edgeplan_test_g", 2 * X.nbytes)
        assert client.get_system_shared_memory_status().regions["g"].byte_size == 2 * X.nbytes
        entry = triton.InferInput("x", [1, 1000], "FP32")
        entry.set_shared_memory("g", X.nbytes)
        output = triton.InferRequestedOutput("y")
        output.set_shared_memory("g", X.nbytes, offset=X.nbytes)
        client.infer("scale", [entry], outputs=[output])
        got = shared_memory.get_contents_as_numpy(region, np.float32, [1, 1000], X.nbytes)
        np.testing.assert_array_equal(got, X * np.float32(0.5))
        client.unregister_system_shared_memory("g")
    finally:
        shared_memory.destroy_shared_memory_region(region)
    (row,) = client.get_inference_statistics("scale").model_stats
    assert row.inference_stats.success.count >= 1
    client.unload_model("two")
    assert not client.is_model_ready("two")
    client.load_model("two")
    assert client.is_model_ready("two")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.inputs[0].shape.append(3), "does not take|binary_data_size"),
        (lambda r: r.raw_input_contents.append(b"1"), "belong to no input"),
        (lambda r: r.raw_input_contents.pop(), "no contents"),
        (lambda r: r.inputs[0].__setattr__("datatype", "INT8"), "expected FP32"),
        (lambda r: r.inputs[0].__setattr__("name", "q"), "no input 'q'"),
        (lambda r: r.inputs.add(name="x", datatype="FP32", shape=[1, 1000]), "no raw contents"),
        (lambda r: r.parameters["priority"].__setattr__("int64_param", 77), "out of range"),
        (lambda r: r.inputs[0].shape.__setitem__(0, -1), "whole numbers"),
    ],
)
def test_wrong_requests_are_invalid_arguments(client, change, message):
    request = service_pb2.ModelInferRequest(model_name="scale", raw_input_contents=[X.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=X.shape)
    change(request)
    import grpc

    with pytest.raises(grpc.RpcError, match=message) as caught:
        client._client_stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_token_is_wanted(tmp_path):
    save(scale_plan(), tmp_path / "scale.plan")
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123")
    token.chmod(0o600)
    with (
        serving(
            tmp_path,
            *("--token-file", token, "--grpc", "127.0.0.1:0"),
            plans={"scale": tmp_path / "scale.plan"},
        ) as served,
        triton.InferenceServerClient(served.info["grpc"]) as client,
    ):
        assert client.is_server_live()
        with pytest.raises(triton.InferenceServerException, match="token"):
            client.infer("scale", [tensor("x", X)])
        headers = {"authorization": "Bearer 0123456789abcdef0123"}
        got = client.infer("scale", [tensor("x", X)], headers=headers).as_numpy("y")
        np.testing.assert_array_equal(got, X * np.float32(0.5))
