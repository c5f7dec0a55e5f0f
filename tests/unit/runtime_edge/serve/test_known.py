"""What was worked out before is found again, and never grows beyond its bounds."""

from __future__ import annotations

from runtime_edge.serve.known import MAX_ENTRIES, MAX_KEY_BYTES, Known


def test_the_oldest_makes_room():
    known = Known()
    for number in range(MAX_ENTRIES + 1):
        known.note(b"%d" % number, number)
    assert known.get(b"0") is None
    assert [known.get(b"%d" % number) for number in (1, MAX_ENTRIES)] == [1, MAX_ENTRIES]
    assert len(known._entries) == MAX_ENTRIES


def test_long_keys_are_not_kept():
    known = Known()
    known.note(bytes(MAX_KEY_BYTES), 1)
    known.note(bytes(MAX_KEY_BYTES + 1), 2)
    assert (known.get(bytes(MAX_KEY_BYTES)), known.get(bytes(MAX_KEY_BYTES + 1))) == (1, None)


def test_what_is_noted_again_replaces_itself_alone():
    known = Known()
    for number in range(MAX_ENTRIES):
        known.note(b"%d" % number, number)
    known.note(b"5", -5)
    assert (known.get(b"0"), known.get(b"5")) == (0, -5)
