"""Memory of request bodies."""

from __future__ import annotations

import ctypes

import pytest

from runtime_edge.serve.bodies import BodyPool


@pytest.mark.parametrize("lead", [0, 1, 63, 64, 777])
def test_the_byte_after_the_json_is_aligned(lead):
    body = BodyPool(1 << 20).take(10_000, lead)
    assert body is not None
    assert (body.address + lead) % 64 == 0
    assert body.address == ctypes.addressof(ctypes.c_char.from_buffer(body.view))
    assert len(body.view) == 10_000


def test_the_limit_holds_and_memory_comes_back():
    pool = BodyPool(100_000)
    bodies = [pool.take(20_000) for _ in range(3)]
    assert all(bodies)
    assert pool.take(60_000) is None
    for body in bodies:
        body.release()
        body.release()
    assert pool.used_bytes == 0
    assert pool.take(60_000) is not None


def test_blocks_are_used_again():
    pool = BodyPool(10 << 20)
    first = pool.take(600_000)
    address = first.address
    first.release()
    assert abs(pool.take(590_000).address - address) < 64


def test_blocks_that_are_not_needed_any_more_are_let_go():
    pool = BodyPool(10 << 20)
    bodies = [pool.take(200_000) for _ in range(5)]
    held = pool.used_bytes
    for body in bodies:
        body.release()
    pool.trim()
    assert pool.kept_bytes == held  # they were needed since the last time
    one = pool.take(200_000)
    pool.trim()
    assert pool.used_bytes + pool.kept_bytes == held // 5
    one.release()
    pool.trim()
    pool.trim()
    assert (pool.used_bytes, pool.kept_bytes) == (0, 0)


def test_a_single_body_fits_whatever_the_limit_and_refusals_are_counted():
    pool = BodyPool(100_000)
    large = pool.take(300_000)
    assert large is not None
    assert pool.take(1) is None
    assert pool.refusal(1).status == 503
    assert pool.num_refused == 1
    large.release()
    assert pool.used_bytes == 0


def test_reserved_bytes_count():
    pool = BodyPool(100_000)
    assert pool.reserve(90_000)
    assert pool.take(20_000) is None
    pool.unreserve(90_000)
    assert pool.take(20_000) is not None
