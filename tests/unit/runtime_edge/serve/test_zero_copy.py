"""Tensors that are not copied: the addresses that a context is given, body and shared memory."""

from __future__ import annotations

import asyncio
import json
import os
import time

import numpy as np
import pytest
from support.serve_plans import save, scale_plan

from runtime_edge.serve.bodies import BodyPool
from runtime_edge.serve.config import PlanConfig, ServeConfig
from runtime_edge.serve.daemon import Daemon
from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.infer_request import parse_infer
from runtime_edge.serve.infer_response import infer_response
from runtime_edge.serve.shared_memory import SharedMemoryRegions

X = np.arange(1000, dtype=np.float32).reshape(1, 1000)
Y = X * np.float32(0.5)
NUM_BYTES = X.nbytes


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(save(scale_plan((1, 2)), tmp_path_factory.mktemp("zero") / "scale.plan"))


@pytest.fixture
def memory():
    """Shared memory as a client makes it, removed behind the test: its name and its file."""
    key = f"/edgeplan_zero_copy_{os.getpid()}"
    file = "/dev/shm" + key
    with open(file, "wb") as made:
        made.truncate(3 * NUM_BYTES + 4096)
    os.chmod(file, 0o600)
    yield key, file
    os.unlink(file)


class Served:
    """A daemon in this process whose contexts tell what they are bound to."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.plan = daemon.repository.plans["m"]
        self.deployment = self.plan.deployment
        self.regions = daemon._regions
        self.bound = []
        for runner in self.deployment._runners.values():
            runner.context = _Spy(runner.context, self.bound)

    async def infer(self, content, raw=b"", *, lead=None):
        """Answer of one request, its raw tensors behind the JSON in memory of the pool."""
        text = json.dumps(content).encode()
        body = self.daemon._bodies.take(len(text) + len(raw), len(text) if lead is None else lead)
        body.view[:] = text + raw
        work = parse_infer(self.deployment, body.view, body.address, len(text), self.regions)
        work.holds.append(body)
        self.body_address = body.address + len(text)
        return await self.answer(work)

    async def answer(self, *works):
        # Two fill the largest profile and start, however late the second; one waits for nobody.
        self.plan.queue.batch_delay_us = 20e6 if len(works) > 1 else 0.0
        loop = asyncio.get_running_loop()
        futures = []
        for work in works:
            futures.append(loop.create_future())
            self.daemon.service.submit(self.plan, work, time.monotonic_ns(), futures[-1].set_result)
        answers = await asyncio.wait_for(asyncio.gather(*futures), 30)
        return answers[0] if len(works) == 1 else answers


class _Spy:
    def __init__(self, context, bound):
        self._context = context
        self._bound = bound

    def run(self, bindings):
        self._bound.append(dict(bindings))
        self._context.run(bindings)

    def close(self):
        self._context.close()


def run(path, scenario):
    async def main():
        plan = PlanConfig("m", path, batch_delay_us=200_000)
        daemon = Daemon(ServeConfig(plans=(plan,), http="127.0.0.1:0"))
        await daemon.start()
        try:
            await scenario(Served(daemon))
        finally:
            await daemon.stop()

    asyncio.run(main())


def entry(rows=1, **parameters):
    return {"name": "x", "datatype": "FP32", "shape": [rows, 1000], "parameters": parameters}


def shared(offset, name="r", size=NUM_BYTES):
    return {
        "shared_memory_region": name,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }


def wanted(offset, **more):
    return [{"name": "y", "parameters": shared(offset, **more)}]


def test_a_body_is_read_where_the_socket_put_it(path):
    async def scenario(served):
        content = {"inputs": [entry(binary_data_size=NUM_BYTES)]}
        answer = await served.infer(content, X.tobytes())
        assert served.bound[-1]["x"] == served.body_address
        assert served.body_address % 64 == 0
        np.testing.assert_array_equal(np.frombuffer(answer.outputs[0], np.float32), Y[0])
        length = len(json.dumps(content))
        await served.infer(content, X.tobytes(), lead=length + 1)  # one byte beside
        assert served.body_address % 4 != 0
        assert served.bound[-1]["x"] == served.deployment._runners["b1"].addresses[0]

    run(path, scenario)


def test_the_same_text_again_reads_its_own_body(path):
    """Texts are checked once per plan version; bodies, lengths and identifiers stay apart."""

    async def scenario(served):
        def content(rows=1, **more):
            return {"inputs": [entry(rows, binary_data_size=rows * NUM_BYTES)], **more}

        both = np.concatenate([X, -X])
        for factor in (1, 2, 3):
            scaled = X * np.float32(factor)
            reply = await served.infer(content(), scaled.tobytes())
            assert served.bound[-1]["x"] == served.body_address
            np.testing.assert_array_equal(
                np.frombuffer(reply.outputs[0], np.float32), scaled[0] / 2
            )
            reply = await served.infer(content(2), both.tobytes())
            result = np.frombuffer(reply.outputs[0], np.float32).reshape(2, 1000)
            np.testing.assert_array_equal(result, both / 2)
            for name in ("a", "b"):
                assert (await served.infer(content(id=name), X.tobytes())).work.id == name
        with pytest.raises(RequestError, match="the body ends 1 bytes too early"):
            await served.infer(content(), X.tobytes()[:-1])
        with pytest.raises(RequestError, match="1 bytes of the body belong to no tensor"):
            await served.infer(content(), X.tobytes() + b"!")
        wrong = {"inputs": [entry(binary_data_size=NUM_BYTES - 4)]}
        for _ in range(2):
            with pytest.raises(RequestError, match="binary_data_size is 3,996"):
                await served.infer(wrong, X.tobytes()[:-4])

    run(path, scenario)


def test_answers_to_the_same_text_differ_only_in_their_tensors(path):
    async def scenario(served):
        for options, is_raw in (({"parameters": {"binary_data_output": True}}, True), ({}, False)):
            content = {"id": "é", "inputs": [entry(binary_data_size=NUM_BYTES)], **options}
            texts = []
            for factor in (1, 2):
                raw = (X * np.float32(factor)).tobytes()
                response = infer_response(await served.infer(content, raw))
                text, *tensors = response.parts
                texts.append(json.loads(text))
                found = tensors[0] if is_raw else texts[-1]["outputs"][0].pop("data")
                numbers = np.frombuffer(found, np.float32) if is_raw else np.float32(found)
                np.testing.assert_array_equal(numbers, Y[0] * np.float32(factor))
                lengths = [length for _, length in response.headers]
                assert lengths == ([str(len(text))] if is_raw else [])
            assert texts[0] == texts[1]
            assert texts[0]["id"] == "é"

    run(path, scenario)


def test_shared_memory_is_read_and_written_in_place(path, memory):
    key, file = memory

    async def scenario(served):
        offset = 64  # of the region in the memory, and again of the input in the region
        served.regions.register("r", key, offset, 3 * NUM_BYTES)
        with open(file, "r+b") as mine:
            mine.seek(2 * offset)
            mine.write(X.tobytes())
        begin = served.regions._regions["r"].address
        reply = await served.infer(
            {"inputs": [entry(**shared(offset))], "outputs": wanted(offset + NUM_BYTES)}
        )
        assert reply.error is None
        assert reply.outputs == [None]
        assert served.bound[-1] == {"x": begin + offset, "y": begin + offset + NUM_BYTES}
        with open(file, "rb") as mine:
            mine.seek(2 * offset + NUM_BYTES)
            np.testing.assert_array_equal(np.frombuffer(mine.read(NUM_BYTES), np.float32), Y[0])
        assert served.plan.queue.queued_bytes == 0
        assert served.regions._regions["r"].num_users == 1

    run(path, scenario)


def test_what_cannot_be_used_in_place_is_copied_and_right(path, memory):
    key, file = memory

    async def scenario(served):
        own = served.deployment._runners["b1"].addresses
        served.regions.register("r", key, 0, 3 * NUM_BYTES)
        served.regions.register("again", key, 0, 3 * NUM_BYTES)
        begin = served.regions._regions["r"].address
        with open(file, "r+b") as mine:
            mine.write(X.tobytes())

        def found(offset):
            with open(file, "rb") as mine:
                mine.seek(offset)
                return np.frombuffer(mine.read(NUM_BYTES), np.float32)

        # The output lies over the input, under another name: it may only be written at the end.
        inputs = [entry(**shared(0))]
        reply = await served.infer({"inputs": inputs, "outputs": wanted(400, name="again")})
        assert served.bound[-1] == {"x": begin, "y": own[1]}
        np.testing.assert_array_equal(np.frombuffer(reply.outputs[0], np.float32), Y[0])
        # Not a multiple of the elements' size.
        reply = await served.infer({"inputs": inputs, "outputs": wanted(2 * NUM_BYTES - 2)})
        assert served.bound[-1] == {"x": begin, "y": own[1]}
        # Two requests in one execution.
        works = [
            parse_infer(served.deployment, memoryview(text), 0, None, served.regions)
            for text in [
                json.dumps({"inputs": inputs, "outputs": wanted(at)}).encode()
                for at in (NUM_BYTES, 2 * NUM_BYTES)
            ]
        ]
        answers = await served.answer(*works)
        assert [len(a.outputs[0]) for a in answers] == [NUM_BYTES, NUM_BYTES]
        assert served.bound[-1]["x"] == served.deployment._runners["b2"].addresses[0]
        assert found(0)[1] == 1.0

    run(path, scenario)


def test_memory_that_others_may_shorten_is_not_mapped(path, memory):
    key, file = memory
    os.chmod(file, 0o666)

    async def scenario(served):
        served.regions.register("r", key, 0, NUM_BYTES)
        assert served.regions._regions["r"].address == 0
        with open(file, "r+b") as mine:
            mine.write(X.tobytes())
        answer = await served.infer({"inputs": [entry(**shared(0))]})
        np.testing.assert_array_equal(np.frombuffer(answer.outputs[0], np.float32), Y[0])

    run(path, scenario)


def test_a_region_shortened_while_its_request_waits_harms_nobody_else(path, memory):
    key, file = memory

    async def scenario(served):
        served.regions.register("r", key, 0, NUM_BYTES)
        content = json.dumps({"inputs": [entry(**shared(0))]}).encode()
        lost, alone = (
            parse_infer(served.deployment, memoryview(content), 0, None, served.regions)
            for _ in range(2)
        )
        raw = json.dumps({"inputs": [entry(binary_data_size=NUM_BYTES)]}).encode()
        fine = parse_infer(
            served.deployment, memoryview(raw + X.tobytes()), 0, len(raw), served.regions
        )
        os.truncate(file, 100)
        refused = await served.answer(alone)
        assert refused.error.status == 400
        assert served.plan.statistics.batches == {}  # nothing ran, and no times are made up
        refused, answer = await served.answer(lost, fine)
        assert refused.error.status == 400
        assert "was made shorter" in str(refused.error)
        np.testing.assert_array_equal(np.frombuffer(answer.outputs[0], np.float32), Y[0])
        with pytest.raises(RequestError, match="was made shorter"):
            parse_infer(served.deployment, memoryview(content), 0, None, served.regions)
        assert served.regions._regions["r"].num_users == 1
        assert served.plan.statistics.failures["OTHER"] == 2
        assert served.plan.statistics.executions == 1
        assert served.daemon.service.num_pending == 0

    run(path, scenario)


def test_an_output_that_does_not_fit_is_refused_before_anything_runs(path, memory):
    key, _ = memory

    async def scenario(served):
        served.regions.register("r", key, 0, NUM_BYTES)
        before = len(served.bound)
        with pytest.raises(
            RequestError, match=r"has 4,000 bytes, shared_memory_byte_size is 3,999"
        ):
            await served.infer(
                {
                    "inputs": [entry(binary_data_size=NUM_BYTES)],
                    "outputs": wanted(0, size=NUM_BYTES - 1),
                },
                X.tobytes(),
            )
        assert len(served.bound) == before
        assert served.regions._regions["r"].num_users == 1

    run(path, scenario)


def test_an_output_is_written_whole_or_the_request_fails(memory, monkeypatch):
    key, file = memory
    os.chmod(file, 0o666)  # others may write to it: not mapped
    real, data = os.pwrite, Y.tobytes()
    regions = SharedMemoryRegions(BodyPool(1 << 20))
    regions.register("r", key, 100, 3 * NUM_BYTES)
    place = regions.tensor("r", NUM_BYTES, NUM_BYTES, "output 'y'")
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:1000], at))
    place.write(data)
    with open(file, "rb") as mine:
        content = mine.read()
    assert content == bytes(100 + NUM_BYTES) + data + bytes(len(content) - 100 - 2 * NUM_BYTES)
    taken = iter([1000, 0])
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[: next(taken)], at))
    with pytest.raises(RequestError, match=r"'r' cannot be written: .*; 3,000 of 4,000 bytes"):
        place.write(data)
    place.release()
    regions.unregister()
