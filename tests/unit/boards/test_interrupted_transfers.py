"""Transfers that are cut off: they go on, and both ends count what travelled in vain."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
import time

import pytest
from support.agents import AgentProcess, edgeplan

from boards.errors import LinkLostError
from boards.link.file_transfer import BoardLink, fetch_file, send_to_cache
from boards.store.pieces import MAX_PIECE_BYTES, cut, encode_table


def random_bytes(seed, size):
    """Bytes that do not pack."""
    return random.Random(seed).randbytes(size)


def exactly_once_but_for_two_pieces(sending, data, num_cuts):
    """What both ends counted: everything travelled once, and less than two pieces per cut again."""
    assert sending.num_losses == num_cuts
    assert sending.num_resent <= 2 * num_cuts
    assert sending.resent_bytes < 2 * MAX_PIECE_BYTES * num_cuts
    assert sending.sent_bytes - sending.resent_bytes == len(data)
    assert sending.num_sent - sending.num_resent == sending.num_pieces
    # what came whole to the board came once; an agent that is killed forgets to have counted what
    # it had not confirmed, which is found in its file all the same
    assert sending.num_pieces - 2 * num_cuts <= sending.num_received <= sending.num_pieces
    assert sending.received_bytes == sending.num_received * MAX_PIECE_BYTES


@pytest.mark.parametrize(
    "count", [7, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 20, 33))]
)
def test_a_killed_agent_costs_less_than_two_pieces(tmp_path, count):
    """The same call goes on with an agent that is started anew."""
    data = random_bytes(count, 40 * MAX_PIECE_BYTES)
    agents = [AgentProcess(tmp_path / "store")]

    def kill(done, total):
        if done == count and len(agents) == 1:
            agents[0].kill()
            agents.append(AgentProcess(tmp_path / "store", port=agents[0].port))

    try:
        with BoardLink(agents[0].address, patience_s=60) as link:
            sending = send_to_cache(link, data, progress=kill)
            assert fetch_file(link, sending.sha256, len(data)) == data
    finally:
        for agent in agents:
            agent.stop()
    assert len(agents) == 2
    exactly_once_but_for_two_pieces(sending, data, 1)


def test_what_a_host_sent_before_it_went_is_not_sent_again(tmp_path):
    """Another process gives the same command after the agent was killed."""
    data = random_bytes(3, 40 * MAX_PIECE_BYTES)
    first = AgentProcess(tmp_path / "store")
    confirmed = []

    def kill(done, total):
        confirmed.append(done)
        if done == 7:
            first.kill()

    try:
        with BoardLink(first.address, patience_s=0.0) as link, pytest.raises(LinkLostError):
            send_to_cache(link, data, progress=kill)
    finally:
        first.stop()
    with AgentProcess(tmp_path / "store") as second, BoardLink(second.address) as link:
        begun = begin(link, data)
        (row,) = link.call("status").fields["transfers"]
        assert row["received"] >= max(confirmed)
        assert row["received_bytes"] == row["received"] * MAX_PIECE_BYTES
        assert row["missing"] == begun.fields["missing"] <= 40 - max(confirmed)
        text = edgeplan("boards", "status", "--link", second.address).stdout
        assert f"{row['missing']} of 40 pieces are missing" in text
        sending = send_to_cache(link, data)
        assert sending.num_sent == row["missing"]
        assert fetch_file(link, sending.sha256, len(data)) == data
        assert link.call("status").fields["transfers"] == []


def begin(link, data):
    """The board's answer to the beginning of a transfer."""
    sha256 = hashlib.sha256(data).hexdigest()
    table = encode_table(cut(memoryview(data)))
    return link.call("begin", {"sha256": sha256, "size": len(data)}, table)


def test_a_link_that_is_cut_goes_on_by_itself(tmp_path):
    """A relay in the middle is closed again and again; the same call ends well."""
    data = random_bytes(5, 60 * MAX_PIECE_BYTES)
    with AgentProcess(tmp_path / "store") as agent, _Relay(agent.port) as relay:
        cuts = {10, 25, 40}

        def cut_now(done, total):
            if total - done in cuts:
                cuts.discard(total - done)
                relay.cut()

        with BoardLink(f"tcp://127.0.0.1:{relay.port}", patience_s=60) as link:
            sending = send_to_cache(link, data, progress=cut_now)
            assert not cuts
            assert fetch_file(link, sending.sha256, len(data)) == data
    exactly_once_but_for_two_pieces(sending, data, 3)


def test_the_worst_cut_costs_less_than_two_pieces(tmp_path):
    """All that the host may have on the line is there, and none of it reaches the agent."""
    data = random_bytes(6, 12 * MAX_PIECE_BYTES)
    with AgentProcess(tmp_path / "store") as agent, _Relay(agent.port) as relay:
        cuts = []

        def cut_now(done, total):
            if done == 4 and not cuts:
                # what is not acknowledged is said again and again: after so many bytes all was said
                cuts.append(threading.Thread(target=relay.swallow, args=(6 * MAX_PIECE_BYTES,)))
                cuts[0].start()

        with BoardLink(f"tcp://127.0.0.1:{relay.port}", patience_s=60) as link:
            sending = send_to_cache(link, data, progress=cut_now)
            cuts[0].join()
            assert fetch_file(link, sending.sha256, len(data)) == data
    exactly_once_but_for_two_pieces(sending, data, 1)
    # all of the first piece, and of the second all but its last fragment: two of 32 KiB hold the
    # message's head, and all of the piece but as many bytes as the head has
    assert sending.num_resent == 2
    assert 0 < 2 * MAX_PIECE_BYTES - sending.resent_bytes < 300


class _Relay:
    """A TCP relay to a port, whose connections can be cut, or swallow what the host says."""

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs = []
        self._is_swallowing = False
        self.swallowed_bytes = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pairs += [near, far]
                for one, other, is_host in ((near, far, True), (far, near, False)):
                    thread = threading.Thread(
                        target=self._pump, args=(one, other, is_host), daemon=True
                    )
                    thread.start()
                    self._threads.append(thread)

    def _pump(self, source, target, is_host):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._is_swallowing and is_host:
                    self.swallowed_bytes += len(data)
                else:
                    target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def swallow(self, num_bytes, timeout_s=60.0):
        """Keep what the host says from the agent until there were so many bytes, then cut."""
        self._is_swallowing = True
        end = time.monotonic() + timeout_s
        while self.swallowed_bytes < num_bytes:
            assert time.monotonic() < end, f"the host said {self.swallowed_bytes} bytes"
            time.sleep(0.01)
        self.cut()
        self._is_swallowing = False

    def cut(self):
        """Close all connections."""
        for one in self._pairs:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for one in self._pairs:
            one.close()
