"""The memory plan: no overlap, alignment, bound, determinism."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder_host.lowering.memory_plan import Lifetime, plan_memory

LIFETIMES = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 6), st.integers(0, 5000)), max_size=24
).map(lambda rows: [Lifetime(f"t{i}", a, a + n, s) for i, (a, n, s) in enumerate(rows)])


@given(LIFETIMES, st.sampled_from([1, 64, 256]))
def test_buffers_alive_together_never_overlap(lifetimes, align):
    plan = plan_memory(lifetimes, align)
    for i, a in enumerate(lifetimes):
        assert plan.offsets[a.name] % align == 0
        assert plan.offsets[a.name] + a.size_bytes <= plan.arena_bytes or a.size_bytes == 0
        for b in lifetimes[i + 1 :]:
            if a.last_step < b.first_step or b.last_step < a.first_step:
                continue
            a0, b0 = plan.offsets[a.name], plan.offsets[b.name]
            assert (
                a0 + a.size_bytes <= b0
                or b0 + b.size_bytes <= a0
                or not (a.size_bytes and b.size_bytes)
            )
    assert plan.lower_bound_bytes <= plan.arena_bytes


@given(LIFETIMES, st.integers(0, 1000))
def test_order_of_lifetimes_does_not_matter(lifetimes, seed):
    shuffled = list(lifetimes)
    random.Random(seed).shuffle(shuffled)
    assert plan_memory(shuffled) == plan_memory(lifetimes)


def test_chain_reaches_the_lower_bound():
    # a chain of tensors: only neighbours are alive together
    sizes = [600, 3200, 3200, 800, 1600, 400]
    lifetimes = [Lifetime(f"t{i}", i, i + 1, 1024 * s) for i, s in enumerate(sizes)]
    plan = plan_memory(lifetimes)
    assert plan.arena_bytes == plan.lower_bound_bytes == 1024 * 6400


def test_equal_names_and_bad_alignment_are_refused():
    with pytest.raises(ValueError, match="share a name"):
        plan_memory([Lifetime("a", 0, 1, 1), Lifetime("a", 0, 1, 1)])
    with pytest.raises(ValueError, match="power of two"):
        plan_memory([], 3)
