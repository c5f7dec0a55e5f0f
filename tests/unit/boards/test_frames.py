"""Frames byte by byte, and hostile bytes."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards.link.cobs import cobs_decode, cobs_encode
from boards.link.connection import client_connection, server_connection
from boards.link.frames import (
    MAX_ENCODED_BYTES,
    MAX_NOISE_BYTES,
    Frame,
    FrameSplitter,
    FrameType,
    decode_frame,
    encode_frame,
)
from boards.link.handshake import LinkSettings


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        ("", "01"),
        ("00", "01 01"),
        ("00 00", "01 01 01"),
        ("11 22 00 33", "03 11 22 02 33"),
        ("11 00 00 00", "02 11 01 01 01"),
    ],
)
def test_cobs_examples(data, encoded):
    assert cobs_encode(bytes.fromhex(data)) == bytes.fromhex(encoded)
    assert cobs_decode(bytes.fromhex(encoded)) == bytes.fromhex(data)


@pytest.mark.parametrize("length", [253, 254, 255, 508, 509, 2048])
def test_cobs_of_long_runs(length):
    data = bytes(i % 255 + 1 for i in range(length))
    encoded = cobs_encode(data)
    assert 0 not in encoded
    assert len(encoded) <= length + length // 254 + 1
    assert cobs_decode(encoded) == data


@given(st.binary(max_size=1200))
def test_cobs_round_trip(data):
    encoded = cobs_encode(data)
    assert 0 not in encoded
    assert cobs_decode(encoded) == data


@pytest.mark.parametrize("text", ["00", "05 11", "02 00", "ff" * 10])
def test_cobs_refuses(text):
    assert cobs_decode(bytes.fromhex(text)) is None


def crc32(data):
    """CRC-32 bit by bit: polynomial 0x04C11DB7 reflected, as PROTOCOL.md says."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_a_frame_byte_by_byte():
    frame = Frame(FrameType.DATA, 0x01020304, b"hi", 1, 1, 5, 6, 7, 0x8000000000000001)
    body = bytes.fromhex(
        "e1 06 01 01 04030201 05000000 06000000 0700 0100000000000080" + b"hi".hex()
    )
    assert encode_frame(frame).hex(" ") == (
        "00 0a e1 06 01 01 04 03 02 01 05 01 01 02 06 01 01 02 07 02 01 01 01 01 01 01 "
        f"08 80 68 69 {crc32(body).to_bytes(4, 'little').hex(' ')} 00"
    )
    assert list(FrameSplitter().feed(encode_frame(frame))) == [frame]


def test_frames_survive_any_cut_and_text_between():
    frames = [Frame(FrameType.DATA, 7, bytes(range(i % 256)), sequence=i) for i in range(60)]
    stream = b"login: \r\n".join(encode_frame(frame) for frame in frames)
    for step in (1, 2, 7, 100, len(stream)):
        splitter = FrameSplitter()
        got = [f for i in range(0, len(stream), step) for f in splitter.feed(stream[i : i + step])]
        assert got == frames
        assert b"login: " in splitter.noise


def test_every_single_bit_error_is_noticed():
    encoded = encode_frame(Frame(FrameType.DATA, 7, b"payload", sequence=3))
    for position in range(1, len(encoded) - 1):
        for bit in range(8):
            damaged = bytearray(encoded)
            damaged[position] ^= 1 << bit
            assert list(FrameSplitter().feed(bytes(damaged))) == []


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameType.DATA, 1, flags=0x80),
        Frame(99, 1),  # type: ignore[arg-type]
    ],
)
def test_unknown_types_and_flags_are_no_frames(frame):
    assert decode_frame(encode_frame(frame).strip(b"\0")) is None


def test_endless_bytes_without_a_zero_are_not_kept():
    splitter = FrameSplitter()
    for _ in range(50):
        assert list(splitter.feed(b"A" * 10_000)) == []
    assert len(splitter.pending_text()) <= MAX_ENCODED_BYTES
    frame = Frame(FrameType.PING, 7)
    assert list(splitter.feed(encode_frame(frame))) == [frame]
    assert len(splitter.noise) <= MAX_NOISE_BYTES


def opened(end, now, source):
    """One end of an open session that has something to send."""
    connection = end(7, bytes(16), LinkSettings(), now)
    connection.state = "open"
    connection.send_window.open(64)
    for _ in range(3):
        connection.send(0, source.randbytes(100))
    return connection


def fuzz(end, count, seed):
    """Feed sound, mutated and random frames to one end; it must stay within bounds."""
    source = random.Random(seed)
    connection = end(7, bytes(16), LinkSettings(), 0.0)
    splitter = FrameSplitter()
    now, types = 0.0, list(FrameType)
    for _ in range(count):
        frame = Frame(
            source.choice(types),
            7,
            source.randbytes(source.randrange(40)),
            source.randrange(4) if source.random() < 0.02 else source.randrange(3),
            source.randrange(4),
            source.choice((0, 1, source.randrange(100), source.getrandbits(32))),
            source.choice((0, source.randrange(100), source.getrandbits(32))),
            source.getrandbits(16),
            source.getrandbits(64),
        )
        data = bytearray(encode_frame(frame))
        if source.random() < 0.2:
            data[source.randrange(len(data))] = source.randrange(256)
        if source.random() < 0.05:
            del data[source.randrange(len(data)) :]
        for one in splitter.feed(bytes(data)):
            connection.receive(one, now)
        while connection.next_event() is not None:
            pass
        connection.next_frame(now)
        connection.tick(now)
        now += 0.001
        assert connection.send_window.num_unacked <= 64
        assert len(connection.receive_window._held) <= 64
        if connection.state in ("closed", "hello"):
            connection = opened(end, now, source)
    return splitter.num_frames


@pytest.mark.parametrize("end", [client_connection, server_connection])
def test_ten_thousand_fuzzed_frames(end):
    assert fuzz(end, 10_000, 1) > 5_000


@pytest.mark.slow
@pytest.mark.parametrize("end", [client_connection, server_connection])
def test_a_million_fuzzed_frames(end):
    start = time.monotonic()
    assert fuzz(end, 1_000_000, 2) > 500_000
    assert time.monotonic() - start < 600
