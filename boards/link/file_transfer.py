"""Sending files to a board: only pieces that it lacks travel, and an interruption costs little."""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boards.errors import CommandFailedError, LinkError, LinkLostError, LinkRefusedError
from boards.link.calls import Call
from boards.link.client import BoardClient, LinkOptions
from boards.link.connecting import connect
from boards.link.messages import Message
from boards.store.pieces import MAX_PIECE_BYTES, Piece, cut, encode_table, plan_edges

log = logging.getLogger(__name__)

IN_FLIGHT = 2  # pieces sent and not confirmed: what an interruption can cost
MAX_FETCH_BYTES = 1 << 30  # outputs of one inference
BUSY_WAIT_S = 90.0  # a board that lost its host notices within seconds, and then is free again
_WORTH = 0.95  # a piece is sent packed when that is shorter than this share
_RETRY_S = 1.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Sending:
    """What a transfer did.

    Attributes:
        sha256: of the file; size_bytes: of it.
        num_pieces: in all; num_sent: that travelled, repeats included.
        sent_bytes: of their content as it travelled, i.e. packed.
        num_losses: of the link meanwhile.
        num_resent: pieces of num_sent that were on the line when the link was lost, and had to
            travel again; resent_bytes: of sent_bytes, what had travelled of them in vain.
        num_received, received_bytes: what the board counted since this file was first begun there,
            in earlier attempts too; None when its answer was lost.
    """

    sha256: str
    size_bytes: int
    num_pieces: int
    num_sent: int
    sent_bytes: int
    num_losses: int
    num_resent: int
    resent_bytes: int
    num_received: int | None
    received_bytes: int | None


class BoardLink:
    """A link that comes back: connects anew while its patience lasts.

    Attributes:
        address: of the board.
    """

    def __init__(
        self, address: str, options: LinkOptions | None = None, *, patience_s: float = 60.0
    ) -> None:
        """Nothing is opened yet.

        Args:
            address: see `boards.link.address`.
            options: for every connection.
            patience_s: how long a lost board is looked for; 0: not at all.
        """
        self.address = address
        self.options = options or LinkOptions()
        self.patience_s = patience_s
        self._client: BoardClient | None = None

    @property
    def client(self) -> BoardClient:
        """The open session; opened when it is first asked for. Raises LinkError."""
        if self._client is None:
            self._client = connect(self.address, self.options)
        return self._client

    def again(self, error: LinkLostError) -> None:
        """Connect anew after a loss.

        Raises:
            LinkLostError: the given error, when the board does not come back in time.
        """
        self.close()
        end = time.monotonic() + self.patience_s
        log.warning("%s", error)
        while time.monotonic() < end:
            try:
                self._client = connect(self.address, self.options)
                log.warning("%s: the link is back", self.address)
                return
            except LinkRefusedError:
                raise
            except LinkError as problem:
                log.info("%s", problem)
            time.sleep(min(_RETRY_S, max(0.0, end - time.monotonic())))
        raise LinkLostError(
            f"{error}; it did not come back within {self.patience_s:.0f} s. Give the same command "
            "again later: what the board has already is not sent again"
        ) from error

    def call(
        self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", **options: Any
    ) -> Message:
        """As `BoardClient.call`, again after a lost link, and while the board is busy.

        For commands that may be given twice.
        """
        busy_until = time.monotonic() + BUSY_WAIT_S
        while True:
            try:
                return self.client.call(op, fields, body, **options)
            except LinkLostError as error:
                self.again(error)
            except CommandFailedError as error:
                if error.code != "busy" or time.monotonic() > busy_until:
                    raise
                time.sleep(_RETRY_S)

    def close(self) -> None:
        """Say farewell."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> BoardLink:
        """The link itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


def send_plan(
    link: BoardLink, path: str | os.PathLike[str], name: str, progress: Progress | None = None
) -> tuple[str, Sending]:
    """Send a PLAN file into a board's store. Returns the release's id and what travelled.

    Raises:
        PlanError: no sound plan; LinkError, CommandFailedError: it could not be sent.
    """
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping,
        memoryview(mapping) as view,
    ):
        pieces = cut(view, plan_edges(view, os.fspath(path)))
        message, sending = send_file(link, view, pieces, {"name": name}, progress)
        return str(message.fields["release"]), sending


def send_to_cache(
    link: BoardLink,
    data: bytes | memoryview,
    edges: Sequence[int] = (),
    progress: Progress | None = None,
) -> Sending:
    """Send bytes that the board needs for a while. Errors as in `send_plan`."""
    view = memoryview(data)
    return send_file(link, view, cut(view, edges), {"to": "cache"}, progress)[1]


def send_file(
    link: BoardLink,
    view: memoryview,
    pieces: Sequence[Piece],
    commit: Mapping[str, Any],
    progress: Progress | None = None,
) -> tuple[Message, Sending]:
    """Send a file, going on after losses of the link.

    Args:
        link: to the board.
        view: the whole file.
        pieces: of it.
        commit: arguments of the last command: what the board shall do with the file.
        progress: called with pieces confirmed and pieces to send.

    Returns:
        The answer to the last command, and what travelled.
    """
    sha256 = hashlib.sha256(view).hexdigest()
    sender = _Sender(sha256, view, pieces, progress or _no_progress)
    busy_until = time.monotonic() + BUSY_WAIT_S
    while True:
        try:
            sender.send_missing(link.client)
            message = link.client.call("commit", {"sha256": sha256, **commit}, timeout_s=600)
            return message, sender.result(message)
        except LinkLostError as error:
            sender.num_losses += 1
            if _is_stored(link, error, sha256, commit):
                message = Message({"release": sha256[:16]})
                return message, sender.result(message)
        except CommandFailedError as error:
            # a file that is being checked: the link was lost after `commit`
            if error.code == "busy" and time.monotonic() < busy_until:
                time.sleep(_RETRY_S)
            else:
                sender.count_failure(error)


def _is_stored(
    link: BoardLink, error: LinkLostError, sha256: str, commit: Mapping[str, Any]
) -> bool:
    """Reconnect; whether the board finished the file although its answer was lost."""
    link.again(error)
    if "name" not in commit:
        return False
    plans = link.client.call("status").fields["plans"]
    return any(
        plan["name"] == commit["name"] and release["sha256"] == sha256
        for plan in plans
        for release in plan["releases"]
    )


@dataclass(slots=True)
class _Flying:
    """A piece under way."""

    index: int
    call: Call


class _Sender:
    def __init__(
        self, sha256: str, view: memoryview, pieces: Sequence[Piece], progress: Progress
    ) -> None:
        self.num_losses = 0
        self._num_sent = 0
        self._sent_bytes = 0
        self._num_resent = 0
        self._resent_bytes = 0
        self._sha256 = sha256
        self._view = view
        self._pieces = pieces
        self._progress = progress
        self._num_failures = 0
        self._unanswered: dict[int, int] = {}  # bytes on the line at the last loss, by piece

    def send_missing(self, client: BoardClient) -> None:
        """One pass over what the board lacks."""
        begun = client.call(
            "begin",
            {"sha256": self._sha256, "size": len(self._view)},
            encode_table(self._pieces),
            timeout_s=600,
        )
        missing = [i for i in range(len(self._pieces)) if _bit(begun.body, i)]
        self._count_unanswered(frozenset(missing))
        flying: deque[_Flying] = deque()
        confirmed = 0
        try:
            for index in missing:
                if len(flying) >= IN_FLIGHT:
                    self._land(flying)
                    confirmed += 1
                    self._progress(confirmed, len(missing))
                flying.append(_Flying(index, self._send(client, index, flying)))
            while flying:
                self._land(flying)
        except LinkLostError:
            client.close()  # from now on nothing is given to the line
            self._unanswered |= {
                one.index: one.call.travelled_bytes
                for one in flying
                if one.call.travelled_bytes > 0
            }
            raise
        finally:
            for one in flying:
                one.call.cancel()
        self._progress(len(missing), len(missing))

    def count_failure(self, error: CommandFailedError) -> None:
        """A damaged piece is sent again, but not for ever."""
        self._num_failures += 1
        if error.code != "missing" or self._num_failures > 3:
            raise error
        log.warning("%s", error)

    def result(self, message: Message) -> Sending:
        """What travelled, after the answer to the last command."""
        received = (message.fields.get(name) for name in ("received", "received_bytes"))
        return Sending(
            self._sha256,
            len(self._view),
            len(self._pieces),
            self._num_sent,
            self._sent_bytes,
            self.num_losses,
            self._num_resent,
            self._resent_bytes,
            *(value if type(value) is int else None for value in received),
        )

    def _send(self, client: BoardClient, index: int, flying: Sequence[_Flying]) -> Call:
        piece = self._pieces[index]
        data = bytes(self._view[piece.offset : piece.offset + piece.length])
        packed = zlib.compress(data, 6)
        is_packed = len(packed) < _WORTH * len(data)
        body = packed if is_packed else data
        fields = {"sha256": self._sha256, "index": index, "zlib": is_packed}
        # what is on the line and not confirmed stays below two pieces of the longest kind: the
        # second of two such pieces keeps its last fragment back until the first is confirmed
        unconfirmed_bytes = sum(one.call.body_bytes for one in flying)
        is_much = unconfirmed_bytes + len(body) >= IN_FLIGHT * MAX_PIECE_BYTES
        return client.start("put", fields, body, after=flying[-1].call if is_much else None)

    def _land(self, flying: deque[_Flying]) -> None:
        """Wait until the oldest piece is confirmed."""
        first = flying[0]
        first.call.result()
        flying.popleft()
        self._num_sent += 1
        self._sent_bytes += first.call.body_bytes

    def _count_unanswered(self, missing: frozenset[int]) -> None:
        """Count what was on the line when the link was lost: it arrived, or travels again."""
        for index, travelled_bytes in self._unanswered.items():
            self._num_sent += 1
            self._sent_bytes += travelled_bytes
            if index in missing:
                self._num_resent += 1
                self._resent_bytes += travelled_bytes
        self._unanswered.clear()


def fetch_file(link: BoardLink, sha256: str, size_bytes: int) -> bytes:
    """Bytes of a file in a board's cache, checked against its hash.

    Args:
        link: to the board.
        sha256: of the file, as the board says.
        size_bytes: of it, as the board says.

    Raises:
        LinkError: other bytes came, or more than MAX_FETCH_BYTES would; CommandFailedError: there
            is no such file.
    """
    if type(size_bytes) is not int or not 0 <= size_bytes <= MAX_FETCH_BYTES:
        raise LinkError(
            f"{link.address}: names a file of {size_bytes!r} bytes; allowed are "
            f"{MAX_FETCH_BYTES:,}: is this the board that it should be?"
        )
    parts: list[bytes] = []
    have = 0
    while have < size_bytes:
        fields = {"sha256": sha256, "offset": have, "length": 1 << 16}
        part = link.call("get", fields).body
        if not part:
            break
        parts.append(part)
        have += len(part)
    data = b"".join(parts)
    if len(data) != size_bytes or hashlib.sha256(data).hexdigest() != sha256:
        raise LinkError(
            f"{link.address}: file {sha256[:16]} came with another hash or size; ask again"
        )
    return data


def _bit(bitmap: bytes, index: int) -> bool:
    return index >> 3 < len(bitmap) and bool(bitmap[index >> 3] >> (index & 7) & 1)


def _no_progress(_done: int, _total: int) -> None:
    pass
