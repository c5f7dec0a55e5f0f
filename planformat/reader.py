"""Bytes or a mapping -> Plan: verified, bounded, zero-copy."""

from __future__ import annotations

import hashlib
import mmap
import os
from dataclasses import replace
from types import TracebackType

from planformat import limits
from planformat.container import Container, SectionEntry, SectionKind, parse_container
from planformat.errors import PlanError, PlanFormatError, PlanStrippedError
from planformat.plan import Plan
from planformat.sections.chunks import check_weights, decode_chunks, weights_hash
from planformat.sections.manifest import decode_manifest
from planformat.sections.signature import check_signature
from planformat.validate import check_plan


def read_plan(
    data: bytes | bytearray | memoryview | mmap.mmap,
    *,
    public_key: bytes | None = None,
    source: str = "plan",
) -> Plan:
    """Verify a plan and describe it; weights and code are views of `data`, not copies.

    The verifier always runs: layout, every hash, the signature when a key is given, and the rules
    across sections. `data` must not change while the plan is used.

    Args:
        data: content of a PLAN file.
        public_key: 32 bytes; the plan must be signed with its private half. None accepts unsigned
            plans and does not look at who signed.
        source: name of the plan for messages.

    Raises:
        PlanFormatError: the bytes break SPEC.md.
        PlanVersionError: the plan needs a newer reader.
        PlanSignatureError: a key is given and the signature is missing or wrong.
        PlanStrippedError: the plan's weights were taken out; `planformat.stripped` reads it.
    """
    view = bytes_view(data)
    container = parse_container(view, source)
    require_weights(container, source)
    check_sections(view, container, container.head, public_key, source)
    weights, chunk_lengths = _read_weights(view, container, source)
    plan = decode_sections(view, container, weights, chunk_lengths, source)
    check_plan(plan, source=source)
    return plan


def require_weights(container: Container, source: str) -> None:
    """Refuse a plan whose weights were taken out. Raises PlanStrippedError."""
    if container.is_stripped:
        raise PlanStrippedError(
            f"plan {source}: its weights were stripped; put them in again: "
            f"edgeplan refit {source} MODEL -o OUT.plan"
        )


def check_sections(
    view: memoryview, container: Container, head: bytes, public_key: bytes | None, source: str
) -> None:
    """Compare every section but the weights with its hash, and the signature with a key.

    Args:
        view: the whole file.
        container: of the file.
        head: header and table that the signature is of.
        public_key: as in `read_plan`.
        source: name of the plan for messages.
    """
    signature = container.find(SectionKind.SIGNATURE)
    check_signature(
        section_content(view, signature) if signature else None,
        signature.offset if signature else 0,
        head,
        public_key,
        source,
    )
    for entry in container.entries:
        if entry.kind not in (SectionKind.WEIGHTS, SectionKind.SIGNATURE):
            check_hash(entry, hashlib.sha256(section_content(view, entry)).digest(), source)


def decode_sections(
    view: memoryview,
    container: Container,
    weights: memoryview,
    chunk_lengths: tuple[int, ...],
    source: str,
) -> Plan:
    """The plan that checked sections describe; rules across them are not checked yet."""
    manifest = container.entries[0]
    if manifest.length > limits.MAX_MANIFEST_BYTES:
        raise PlanFormatError(
            f"plan {source}: section 'manifest' has {manifest.length:,} bytes, allowed are "
            f"{limits.MAX_MANIFEST_BYTES:,}"
        )
    code = [section_content(view, e) for e in container.entries if e.kind == SectionKind.CODE]
    details = container.find(SectionKind.DETAILS)
    plan = decode_manifest(
        section_content(view, manifest),
        manifest.offset,
        weights=weights,
        chunk_lengths=chunk_lengths,
        code=code,
        minor=container.minor,
        source=source,
    )
    return plan if details is None else replace(plan, details=section_content(view, details))


def read_container(
    data: bytes | bytearray | memoryview | mmap.mmap, *, source: str = "plan"
) -> Container:
    """Only header and section table, checked; for inspection.

    Raises:
        PlanFormatError, PlanVersionError: as in `read_plan`, for header, table and padding.
    """
    return parse_container(bytes_view(data), source)


class OpenPlan:
    """A plan mapped from a file. Closes as a context manager or by `close`.

    Attributes:
        plan: weights and code are read-only views of the mapping.
        container: header and section table.
        path: of the file.
    """

    def __init__(self, plan: Plan, container: Container, path: str, mapping: mmap.mmap) -> None:
        self.plan = plan
        self.container = container
        self.path = path
        self._mapping = mapping

    def close(self) -> None:
        """Unmap the file; the plan's weights and code can no longer be read.

        Raises:
            PlanError: something (an array, a ctypes object) still uses weights or code.
        """
        views = [code.data for variant in self.plan.variants for code in variant.code_objects]
        try:
            for view in (self.plan.weights, self.plan.details, *views):
                if isinstance(view, memoryview):
                    view.release()
            self._mapping.close()
        except BufferError as error:
            raise PlanError(
                f"plan {self.path}: cannot be closed, its weights or code are still in use; drop "
                f"arrays and views of them first ({error})"
            ) from error

    def __enter__(self) -> OpenPlan:
        """The open plan itself."""
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the mapping."""
        self.close()


def open_plan(path: str | os.PathLike[str], *, public_key: bytes | None = None) -> OpenPlan:
    """Map a PLAN file and verify it as `read_plan` does.

    Args:
        path: of the file.
        public_key: Ed25519 key that must have signed it, or None.

    Raises:
        PlanError: the file cannot be opened; also everything that `read_plan` raises.
    """
    source = os.fspath(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise PlanFormatError(f"plan {source}: the file is empty; fetch it again")
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise PlanError(f"plan {source}: cannot be opened: {error}") from error
    plan = read_plan(mapping, public_key=public_key, source=source)
    return OpenPlan(plan, read_container(mapping, source=source), source, mapping)


def bytes_view(data: bytes | bytearray | memoryview | mmap.mmap) -> memoryview:
    """The bytes of a file's content, read-only."""
    return memoryview(data).cast("B").toreadonly()


def section_content(view: memoryview, entry: SectionEntry) -> memoryview:
    """The bytes of a section."""
    return view[entry.offset : entry.end]


def check_hash(entry: SectionEntry, actual: bytes, source: str) -> None:
    """Compare a section's hash with the table. Raises PlanFormatError."""
    if actual != entry.sha256:
        raise PlanFormatError(
            f"plan {source}: section '{entry.name}', bytes {entry.offset:,} to {entry.end:,}: "
            f"SHA-256 is {actual.hex()}, stored is {entry.sha256.hex()}; the section was changed: "
            "fetch the plan again"
        )


def _read_weights(
    view: memoryview, container: Container, source: str
) -> tuple[memoryview, tuple[int, ...]]:
    weights = container.find(SectionKind.WEIGHTS)
    chunks = container.find(SectionKind.CHUNKS)
    if weights is None or chunks is None:
        return memoryview(b""), ()
    if weights.alignment < limits.CHUNK_ALIGNMENT_BYTES:
        raise PlanFormatError(
            f"plan {source}: section 'weights' has alignment {weights.alignment}, must have at "
            f"least {limits.CHUNK_ALIGNMENT_BYTES}"
        )
    lengths, hashes = decode_chunks(
        section_content(view, chunks), chunks.offset, weights.length, source
    )
    check_hash(weights, weights_hash(hashes), source)
    content = section_content(view, weights)
    check_weights(content, weights.offset, lengths, hashes, source)
    return content, lengths
