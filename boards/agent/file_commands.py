"""Commands on files: begin, put, commit, get."""

from __future__ import annotations

import logging
import os
import zlib
from typing import TYPE_CHECKING

from boards.agent.arguments import whole
from boards.errors import CommandFailedError
from boards.store.incoming import IncomingFile, check_sha256
from boards.store.pieces import MAX_PIECE_BYTES
from boards.store.plan_store import check_name
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
    file.put(index, data)
    request.agent.when_synced(request.reply)


def commit(request: Request) -> None:
    """Compare a whole file with its hash, and put it where it belongs."""
    sha256 = check_sha256(request.fields["sha256"])
    file = request.agent.incoming.get(sha256)
    is_cached = request.fields.get("to") == "cache"
    name = "" if is_cached else check_name(str(request.fields["name"]))

    def finish(missing: int) -> None:
        if missing:
            text = f"{missing} pieces are missing or damaged; begin again"
            raise CommandFailedError(text, "missing")
        if is_cached:
            request.agent.incoming.to_cache(sha256)
            request.reply()
            return
        record = ReleaseRecord(sha256[:16], sha256, file.size_bytes)
        request.agent.store.add(name, file.part_path, record, file.table)
        request.agent.incoming.finish(sha256)
        log.info("'%s': release %s is stored", name, record.release_id)
        request.reply({"release": record.release_id})

    request.agent.aside(request, file.check, finish)


def get(request: Request) -> None:
    """A part of a file in the cache."""
    path = request.agent.incoming.cached(request.fields["sha256"])
    offset = whole(request.fields["offset"], 0, MAX_FILE_BYTES)
    length = whole(request.fields["length"], 0, MAX_READ_BYTES)
    with open(path, "rb") as file:
        request.reply({"size": path.stat().st_size}, os.pread(file.fileno(), length, offset))
