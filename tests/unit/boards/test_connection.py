"""The link's state machine on simulated lines: rate kept, nothing wrong, nothing lost."""

from __future__ import annotations

import random

import pytest
from support.faulty_line import BITS_PER_BYTE, Faults, FaultySession

from boards.errors import LinkProtocolError, LinkRefusedError
from boards.link.channels import BULK, COMMANDS, LOGS
from boards.link.connection import Closed, Established
from boards.link.frames import FLAG_END, Frame, FrameType
from boards.link.handshake import LinkSettings

KEY = b"k" * 32
PERCENT = Faults(dropped=0.01, duplicated=0.01, reordered=0.01, corrupted=0.01)
HEAVY = Faults(dropped=0.15, duplicated=0.15, reordered=0.15, corrupted=0.15)


def opened(seed=1, faults=None, **options):
    """A session after its handshake."""
    session = FaultySession(seed, faults or Faults(), **options)
    session.run(lambda: session.client.state == session.server.state == "open", 60)
    return session


def messages(seed, count, length):
    """Random messages, each of its own."""
    source = random.Random(seed)
    return [source.randbytes(length) for _ in range(count)]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("key", [None, KEY])
def test_one_percent_of_each_fault_keeps_nine_tenths_of_the_line_rate(seed, key):
    settings = LinkSettings(key=key)
    session = opened(seed, PERCENT, client=settings, server=settings)
    sent = messages(seed, 40, 65536)
    for one in sent:
        session.client.send(BULK, one)
    elapsed = session.run(lambda: len(session.at_server) == len(sent), 120)
    assert [data for _, data in session.at_server] == sent
    rate = sum(map(len, sent)) / elapsed
    assert rate >= 0.9 * session.up.baud / BITS_PER_BYTE


@pytest.mark.parametrize("seed", range(4))
def test_heavy_faults_both_ways_deliver_every_byte_in_order(seed):
    session = opened(seed, HEAVY)
    up, down = messages(seed, 12, 20000), messages(seed + 100, 12, 20000)
    for one, other in zip(up, down, strict=True):
        session.client.send(BULK, one)
        session.server.send(BULK, other)
    session.run(lambda: len(session.at_server) == len(session.at_client) == 12, 120)
    assert [data for _, data in session.at_server] == up
    assert [data for _, data in session.at_client] == down


def test_commands_overtake_bulk():
    session = opened()
    session.client.send(BULK, bytes(500_000))
    session.run(lambda: session.server.receive_window.expected > 20, 10)
    session.client.send(COMMANDS, b"status")
    elapsed = session.run(lambda: session.at_server, 10)
    assert session.at_server == [(COMMANDS, b"status")]
    assert elapsed < 0.1  # one frame of 2 KiB takes 22 ms at 921600 baud
    session.run(lambda: len(session.at_server) == 2, 10)


def test_logs_wait_for_everything_else():
    session = opened()
    for channel in (LOGS, BULK, COMMANDS):
        session.server.send(channel, b"x" * 3000)
    session.run(lambda: len(session.at_client) == 3, 5)
    assert [channel for channel, _ in session.at_client] == [COMMANDS, BULK, LOGS]


def test_empty_and_longest_messages_pass():
    long = LinkSettings(max_payload_bytes=32768)
    session = opened(baud=100_000_000, client=long, server=long)
    session.client.send(COMMANDS, b"")
    session.client.send(BULK, bytes(4 << 20))
    session.run(lambda: len(session.at_server) == 2, 60)
    assert [len(data) for _, data in session.at_server] == [0, 4 << 20]
    with pytest.raises(ValueError, match="limit is 4,194,304"):
        session.client.send(BULK, bytes((4 << 20) + 1))


def test_a_reader_that_does_not_read_stops_the_sender_and_loses_nothing():
    session = opened()
    session._collect = lambda end: None
    for number in range(300):
        session.client.send(COMMANDS, number.to_bytes(2, "little"))
    end = session.now + 20
    session.run(lambda: session.now > end, 30)
    assert session.server.receive_window.num_undelivered == 64
    assert session.client.queued_bytes > 0
    del session._collect
    session.run(lambda: len(session.at_server) == 300, 30)
    assert [int.from_bytes(data, "little") for _, data in session.at_server] == list(range(300))


def test_long_messages_that_nobody_reads_take_little_memory():
    """Their frames count, so that 64 of the longest messages cannot pile up."""
    session = opened()
    part = Frame(FrameType.DATA, session.server.session, bytes(2048), BULK)
    credits = []
    for sequence in range(64):
        flags = FLAG_END if sequence % 32 == 31 else 0
        session.server.receive(part._replace(sequence=sequence, flags=flags), session.now)
        credits.append(session.server.receive_window.credit)
    assert (credits[30], credits[31], credits[62], credits[63]) == (64, 32, 32, 0)
    session._collect(session.server)
    assert [len(data) for _, data in session.at_server] == [65536, 65536]
    assert session.server.receive_window.credit == 64


def test_a_held_message_keeps_its_last_fragment_and_its_channel_back():
    session = opened()
    held = session.client.send(BULK, b"a" * 5000, is_held=True)
    session.client.send(BULK, b"b" * 5000)
    session.client.send(COMMANDS, b"c")
    session.client.send(LOGS, b"d")
    end = session.now + 5
    session.run(lambda: session.now > end, 10)
    assert session.at_server == [(COMMANDS, b"c"), (LOGS, b"d")]
    assert held.num_given_bytes == 2 * session.client.max_payload_bytes == 4096
    assert not session.client.is_idle
    held.is_held = False
    session.run(lambda: len(session.at_server) == 4, 5)
    assert session.at_server[2:] == [(BULK, b"a" * 5000), (BULK, b"b" * 5000)]
    assert held.num_given_bytes == held.size


def test_a_silent_other_end_is_noticed_and_an_idle_one_is_not():
    session = opened()
    until = session.now + 60
    session.run(lambda: session.now > until, 70)
    assert session.client.state == session.server.state == "open"
    session.up.faults = session.down.faults = Faults(dropped=1.0)
    session.run(lambda: session.client.state == session.server.state == "closed", 20)
    closed = [event for event in session.events if isinstance(event, Closed)]
    assert len(closed) == 2
    assert all("nothing was heard" in str(event.error) for event in closed)


def test_farewell_closes_the_other_end_without_error():
    session = opened()
    session.client.close()
    session.run(lambda: session.server.state == "closed", 5)
    assert session.events[-1] == Closed(None)


def test_the_smaller_payload_counts():
    session = opened(client=LinkSettings(max_payload_bytes=512))
    session.client.send(BULK, bytes(5120))
    session.run(lambda: session.at_server, 5)
    assert session.client.send_window.num_sent == 10


def refusals(client, server, seed=5):
    """Texts with which a handshake ends on both ends."""
    session = FaultySession(seed, Faults(), client=client, server=server)
    session.run(lambda: session.client.state == "closed", 30)
    assert not any(isinstance(event, Established) for event in session.events)
    return [str(e.error) for e in session.events if isinstance(e.error, LinkRefusedError)]


def test_a_board_with_a_key_takes_no_host_without():
    assert "wants a key" in refusals(LinkSettings(), LinkSettings(key=KEY))[-1]


def test_a_host_with_a_key_takes_no_board_without():
    assert "anybody could answer" in refusals(LinkSettings(key=KEY), LinkSettings())[-1]


def test_another_key_is_refused():
    texts = refusals(LinkSettings(key=b"x" * 32), LinkSettings(key=KEY))
    assert all("the key is not the board's" in text for text in texts)


def test_an_unknown_version_names_both_ranges():
    session = FaultySession(1, Faults())
    hello = session.client.next_frame(0.0).payload.replace(b"[1, 1]", b"[7, 9]")
    session.server.receive(Frame(FrameType.HELLO, session.server.session, hello), 0.0)
    event = session.server.next_event()
    assert "speaks link versions 7 to 9" in str(event.error)
    assert "update the board" in str(event.error)
    assert session.server.next_frame(0.0).type is FrameType.REFUSE


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 2000,
        b'{"versions": [1]}',
        b'{"versions": 1}',
        b"\xff" * 99,
    ],
)
def test_malformed_greetings_are_refused(payload):
    session = FaultySession(1, Faults())
    session.server.receive(Frame(FrameType.HELLO, session.server.session, payload), 0.0)
    assert "greeting cannot be read" in str(session.server.next_event().error)


def test_frames_without_the_right_code_change_nothing():
    settings = LinkSettings(key=KEY)
    session = opened(client=settings, server=settings)
    forged = Frame(FrameType.DATA, session.server.session, b"evil" + bytes(16), COMMANDS, 1)
    for frame in (
        forged,
        forged._replace(payload=b""),
        Frame(FrameType.BYE, session.server.session, bytes(16)),
    ):
        session.server.receive(frame, session.now)
    assert session.server.state == "open"
    assert session.server.receive_window.expected == 0
    session.client.receive(Frame(FrameType.RESET, session.client.session), session.now)
    assert session.client.state == "open"


def test_replayed_frames_are_delivered_once():
    settings = LinkSettings(key=KEY)
    session = opened(client=settings, server=settings)
    session.client.send(COMMANDS, b"once")
    frame = session.client.next_frame(session.now)
    for _ in range(3):
        session.server.receive(frame, session.now)
    session._collect(session.server)
    assert session.at_server == [(COMMANDS, b"once")]


def test_a_reset_ends_a_session_without_key():
    session = opened()
    session.client.receive(Frame(FrameType.RESET, session.client.session), session.now)
    assert isinstance(session.client.next_event().error, LinkProtocolError)


def test_an_acknowledgement_of_the_future_is_ignored():
    session = opened()
    session.server.send(COMMANDS, b"hello")
    session.server.receive(Frame(FrameType.ACK, session.server.session, ack=99), session.now)
    session.run(lambda: session.at_client, 5)
    assert session.at_client == [(COMMANDS, b"hello")]


def test_a_message_beyond_the_limit_ends_the_session():
    session = opened(baud=100_000_000)
    part = Frame(FrameType.DATA, session.server.session, bytes(32768), BULK)
    for sequence in range((4 << 20) // 32768 + 1):
        session.server.receive(part._replace(sequence=sequence), session.now)
    assert "longer than 4,194,304 bytes" in str(session.server.next_event().error)
