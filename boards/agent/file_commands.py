"""Commands on files: begin, put, commit, get."""

from __future__ import annotations

import logging
import os
import zlib
from typing import TYPE_CHECKING

from boards.agent.arguments import whole
from boards.errors import CommandFailedError
from boards.store.incoming import check_sha256
from boards.store.incoming_file import IncomingFile
from boards.store.pieces import MAX_PIECE_BYTES
from boards.store.reader import check_name
from boards.store.records import ReleaseRecord

if TYPE_CHECKING:
    from boards.agent.request import Request

log = logging.getLogger(__name__)

MAX_READ_BYTES = 1 << 18
MAX_FILE_BYTES = 1 << 36


def begin(request: Request) -> None:
    """Start a transfer, or go on with one; the answer says which pieces are wanted."""
    sha256 = check_sha256(request.fields["sha256"])
    size = whole(request.fields["size"], 1, MAX_FILE_BYTES)
    _refuse_while_checking(request, sha256)

    def finish(file: IncomingFile) -> None:
        bitmap = file.missing_bitmap()
        request.reply({"missing": file.num_missing, "copied": file.num_copied}, bitmap)

    incoming = request.agent.incoming
    request.agent.aside(request, lambda: incoming.begin(sha256, size, request.body), finish)


def put(request: Request) -> None:
    """Take a piece; answered when it is on the disk."""
    file = request.agent.incoming.get(request.fields["sha256"])
    index = whole(request.fields["index"], 0, len(file.pieces) - 1)
    data = request.body
    if request.fields.get("zlib") is True:
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(data, MAX_PIECE_BYTES + 1)
        except zlib.error as error:
            raise CommandFailedError(
                f"piece {index} cannot be unpacked: {error}", "damaged"
            ) from error
    file.put(index, data, len(request.body))
    request.agent.when_synced(request, file)


def commit(request: Request) -> None:
    """Compare a whole file with its hash, and put it where it belongs."""
    sha256 = check_sha256(request.fields["sha256"])
    incoming = request.agent.incoming
    file = incoming.get(sha256)
    is_cached = request.fields.get("to") == "cache"
    name = "" if is_cached else check_name(str(request.fields["name"]))
    _refuse_while_checking(request, sha256)
    file.begin_check()

    def check() -> int:
        try:
            return file.check()
        except BaseException:
            file.end_check()
            raise

    def finish(missing: int) -> None:
        try:
            if missing:
                text = f"{missing} pieces are missing or damaged; begin again"
                raise CommandFailedError(text, "missing")
            if is_cached:
                incoming.to_cache(sha256)
                release = ""
            else:
                release = _store(request, name, file)
        finally:
            file.end_check()
        received = {"received": file.num_received, "received_bytes": file.received_bytes}
        request.reply({**({"release": release} if release else {}), **received})

    request.agent.aside(request, check, finish)


def _store(request: Request, name: str, file: IncomingFile) -> str:
    """Move a checked plan into the store. Returns its release."""
    record = ReleaseRecord(file.sha256[:16], file.sha256, file.size_bytes)
    request.agent.store.add(name, file.part_path, record, file.table)
    request.agent.incoming.finish(file.sha256)
    log.info("'%s': release %s is stored", name, record.release_id)
    return record.release_id


def _refuse_while_checking(request: Request, sha256: str) -> None:
    if request.agent.incoming.is_checking(sha256):
        raise CommandFailedError(f"file {sha256[:16]} is being checked; wait", "busy")


def get(request: Request) -> None:
    """A part of a file in the cache."""
    path = request.agent.incoming.cached(request.fields["sha256"])
    offset = whole(request.fields["offset"], 0, MAX_FILE_BYTES)
    length = whole(request.fields["length"], 0, MAX_READ_BYTES)
    with open(path, "rb") as file:
        request.reply({"size": path.stat().st_size}, os.pread(file.fileno(), length, offset))
