"""Places of requests whose bodies are on their way."""

from __future__ import annotations

import pytest

from runtime_edge.serve import places
from runtime_edge.serve.places import GRACE_NS, Places
from runtime_edge.serve.scheduler import PlanQueue


@pytest.fixture
def clock(monkeypatch):
    """Time in a list of one element, in nanoseconds."""
    now = [10 * GRACE_NS]
    monkeypatch.setattr(places.time, "monotonic_ns", lambda: now[0])
    return now


def queue() -> PlanQueue:
    return PlanQueue("p", 4, 1000, 1e6)


def test_a_place_counts_until_it_is_given_back():
    taken, own = Places(), queue()
    first, second = (taken.take(own, size, lambda: None) for size in (300, 70))
    assert (own.num_coming, own.coming_bytes) == (2, 370)
    first.keep()
    assert (own.num_coming, own.coming_bytes) == (2, 370)
    second.grow(30)
    assert (own.num_coming, own.coming_bytes) == (2, 400)
    for _ in range(2):
        first.give_back()
        second.give_back()
    assert (own.num_coming, own.coming_bytes) == (0, 0)


def test_the_slowest_gives_way_and_only_after_its_time(clock):
    taken, own, other = Places(), queue(), queue()
    gone = []

    def take(name, plan):
        place = taken.take(plan, 1, lambda: (gone.append(name), place.give_back()))
        place.wait()
        return place

    take("elsewhere", other)
    take("here", own).keep()
    take("slow", own)
    clock[0] += GRACE_NS - 1
    assert not taken.make_room(own)
    clock[0] += 2
    take("fresh", own)
    assert taken.make_room(own)
    assert not taken.make_room(own)  # what is left is here, or fresh
    assert taken.make_room()
    assert gone == ["slow", "elsewhere"]
    assert (own.num_coming, other.num_coming) == (2, 0)


def test_who_wants_room_does_not_give_way_to_itself(clock):
    taken, own = Places(), queue()
    gone = []
    first = taken.take(own, 1, lambda: gone.append("first"))
    second = taken.take(own, 1, lambda: gone.append("second"))
    for place in (first, second):
        place.wait()
    clock[0] += GRACE_NS + 1
    assert taken.make_room(own, spare=first)
    assert gone == ["second"]
    assert not taken.make_room(own, spare=first)
    assert taken.make_room(own)
    assert gone == ["second", "first"]
