"""Plan -> bytes. The same plan and key give the same bytes on every machine."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from planformat import limits
from planformat.container import (
    FLAG_CODE_ZONE,
    FLAG_MAY_IGNORE,
    ZERO_HASH,
    SectionEntry,
    SectionKind,
    align_up,
    encode_head,
)
from planformat.errors import PlanError, PlanFormatError
from planformat.plan import Buffer, Plan
from planformat.release import Release, with_release
from planformat.sections.chunks import encode_chunks
from planformat.sections.manifest import encode_manifest
from planformat.sections.signature import SECTION_BYTES, encode_signature
from planformat.validate import check_plan

_SMALL_ALIGNMENT = 64
_PAGE_ALIGNMENT = 4096
_FLAGS = {SectionKind.CODE: FLAG_CODE_ZONE, SectionKind.DETAILS: FLAG_MAY_IGNORE}


def plan_bytes(plan: Plan, *, signing_key: bytes | None = None) -> bytes:
    """The content of a PLAN file.

    Args:
        plan: what to write.
        signing_key: 32 bytes of an Ed25519 private key; None leaves the plan unsigned.

    Raises:
        PlanFormatError: the plan breaks a rule of SPEC.md.
        PlanSignatureError: a key is given that is no key, or PyNaCl is missing.
    """
    return b"".join(_parts(plan, signing_key))


def save_plan(
    plan: Plan, path: str | os.PathLike[str], *, signing_key: bytes | None = None
) -> None:
    """Write a PLAN file so that the path holds either the old content or the whole new one.

    The bytes go to a temporary file in the same folder, reach the disk, and are then renamed.

    Args:
        plan: what to write.
        path: file to make or replace.
        signing_key: as in `plan_bytes`.

    Raises:
        PlanError: the file cannot be written; also everything that `plan_bytes` raises.
    """
    write_atomically(path, _parts(plan, signing_key))


def write_atomically(path: str | os.PathLike[str], parts: Iterable[Buffer]) -> None:
    """Write parts one after the other so that the path holds the old content or all of the new.

    Raises:
        PlanError: the file cannot be written; the old one is still there.
    """
    contents = list(parts)
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise PlanError(f"plan {path}: cannot be written: {error}") from error
    try:
        with open(descriptor, "wb") as file:
            for part in contents:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise PlanError(f"plan {path}: cannot be written: {error}") from error
        raise
    _sync_folder(folder, path)


def sign_plan(
    data: bytes | memoryview,
    signing_key: bytes,
    *,
    source: str = "plan",
    release: Release | None = None,
) -> bytes:
    """The same plan with a new signature, in place of its old one if it has one.

    Args:
        data: content of a PLAN file.
        signing_key: 32 bytes of an Ed25519 private key.
        source: name of the plan for messages.
        release: release number and expiry that it states from now on; None leaves them.

    Raises:
        PlanError: the plan is not valid, or holds parts of a newer version that would be lost.
    """
    from planformat.reader import read_container, read_plan

    plan = read_plan(data, source=source)
    container = read_container(data, source=source)
    unknown = [entry.name for entry in container.entries if entry.kind not in list(SectionKind)]
    if unknown or container.optional_features:
        raise PlanFormatError(
            f"plan {source}: sections {unknown} and optional features "
            f"{container.optional_features:#x} are not known to this version and would be lost; "
            "sign it with the version that wrote it"
        )
    if release is not None:
        plan = with_release(plan, release)
    return plan_bytes(plan, signing_key=signing_key)


@dataclass(frozen=True, slots=True)
class _Section:
    kind: SectionKind
    alignment: int
    sha256: bytes
    length: int
    content: Buffer | None  # None: made after the head is known


def _parts(plan: Plan, signing_key: bytes | None) -> Iterator[Buffer]:
    check_plan(plan, source=f"'{plan.name}'")
    sections = list(_sections(plan, is_signed=signing_key is not None))
    if len(sections) > limits.MAX_SECTIONS:
        raise PlanFormatError(
            f"plan '{plan.name}': needs {len(sections):,} sections, allowed are "
            f"{limits.MAX_SECTIONS:,}; link kernels into fewer code objects"
        )
    entries = []
    head_length = len(encode_head([_entry(section, 0) for section in sections]))
    end = head_length
    for section in sections:
        entry = _entry(section, align_up(end, section.alignment))
        entries.append(entry)
        end = entry.end
    head = encode_head(entries)
    yield head
    end = head_length
    for section, entry in zip(sections, entries, strict=True):
        yield bytes(entry.offset - end)
        if section.content is not None:
            yield section.content
        else:
            assert signing_key is not None
            yield encode_signature(head, signing_key)
        end = entry.end


def _sections(plan: Plan, *, is_signed: bool) -> Iterator[_Section]:
    code: dict[bytes, int] = {}
    contents: list[Buffer] = []
    indices = []
    for variant in plan.variants:
        row = []
        for code_object in variant.code_objects:
            digest = hashlib.sha256(code_object.data).digest()
            if digest not in code:
                code[digest] = len(contents)
                contents.append(code_object.data)
            row.append(code[digest])
        indices.append(row)
    manifest = encode_manifest(plan, indices)
    if len(manifest) > limits.MAX_MANIFEST_BYTES:
        raise PlanFormatError(
            f"plan '{plan.name}': the manifest needs {len(manifest):,} bytes, allowed are "
            f"{limits.MAX_MANIFEST_BYTES:,}; use fewer profiles or variants"
        )
    yield _hashed(SectionKind.MANIFEST, _SMALL_ALIGNMENT, manifest)
    weights = memoryview(plan.weights).cast("B")
    if weights:
        chunks, weights_hash = encode_chunks(weights, plan.chunk_lengths)
        yield _hashed(SectionKind.CHUNKS, _SMALL_ALIGNMENT, chunks)
    if is_signed:
        yield _Section(SectionKind.SIGNATURE, _SMALL_ALIGNMENT, ZERO_HASH, SECTION_BYTES, None)
    if weights:
        yield _Section(SectionKind.WEIGHTS, _PAGE_ALIGNMENT, weights_hash, len(weights), weights)
    if plan.details:
        yield _hashed(SectionKind.DETAILS, _SMALL_ALIGNMENT, bytes(plan.details))
    for content, digest in zip(contents, code, strict=True):
        yield _Section(SectionKind.CODE, _PAGE_ALIGNMENT, digest, len(content), content)


def _hashed(kind: SectionKind, alignment: int, content: bytes) -> _Section:
    return _Section(kind, alignment, hashlib.sha256(content).digest(), len(content), content)


def _entry(section: _Section, offset: int) -> SectionEntry:
    flags = _FLAGS.get(section.kind, 0)
    return SectionEntry(
        section.kind, flags, offset, section.length, section.alignment, section.sha256
    )


def _sync_folder(folder: str, path: str) -> None:
    """Make the rename durable, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise PlanError(
                f"plan {path}: was written, but its folder could not be flushed to disk: {error}"
            ) from error
