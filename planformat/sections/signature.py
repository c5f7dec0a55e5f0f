"""Section SIGNATURE: an Ed25519 signature over header and table (SPEC.md section 4.3)."""

from __future__ import annotations

import hashlib
import struct

from planformat.errors import PlanFormatError, PlanSignatureError, PlanVersionError

_CONTENT = struct.Struct("<II16s64s")
SECTION_BYTES = _CONTENT.size + 32

ALGORITHM_ED25519 = 1
_CONTEXT = b"edgeplan plan signature 1\0"


def signed_message(head: bytes) -> bytes:
    """What is signed: a fixed text, then header and table as they stand in the file."""
    return _CONTEXT + head


def encode_signature(head: bytes, signing_key: bytes) -> bytes:
    """The section's bytes. signing_key: 32 bytes of private key."""
    from planformat import signing

    signature = signing.sign(signed_message(head), signing_key)
    content = _CONTENT.pack(
        ALGORITHM_ED25519, 0, signing.key_id(signing.public_key_of(signing_key)), signature
    )
    return content + hashlib.sha256(content).digest()


def check_signature(
    section: memoryview | None,
    offset: int,
    head: bytes,
    public_key: bytes | None,
    source: str,
) -> None:
    """Check the section's own form and, when a key is required, the signature.

    Args:
        section: content of the SIGNATURE section, None when the plan has none.
        offset: first byte of the section in the file.
        head: header and table.
        public_key: 32 bytes, or None when no signature is required.
        source: name of the plan for messages.

    Raises:
        PlanFormatError: malformed section.
        PlanVersionError: signature algorithm that this reader does not know.
        PlanSignatureError: a key is required and the signature is missing or not made with it.
    """
    if section is None:
        if public_key is not None:
            raise PlanSignatureError(
                f"plan {source}: a signature is required but the plan has none; sign it with "
                "'edgeplan sign' or load it without a key"
            )
        return
    where = f"plan {source}: section 'signature', byte"
    if len(section) != SECTION_BYTES:
        raise PlanFormatError(
            f"{where} {offset:,}: has {len(section):,} bytes, must have {SECTION_BYTES}"
        )
    content = bytes(section[: _CONTENT.size])
    stored, actual = bytes(section[_CONTENT.size :]), hashlib.sha256(content).digest()
    if stored != actual:
        raise PlanFormatError(
            f"{where} {offset:,}: SHA-256 is {actual.hex()}, stored is {stored.hex()}; the "
            "signature was changed: fetch the plan again"
        )
    algorithm, reserved, key_id, signature = _CONTENT.unpack(content)
    if algorithm != ALGORITHM_ED25519:
        raise PlanVersionError(
            f"{where} {offset:,}: algorithm {algorithm}, this reader knows only "
            f"{ALGORITHM_ED25519} (Ed25519); update edgeplan on this device"
        )
    if reserved:
        raise PlanFormatError(f"{where} {offset + 4:,}: reserved field is {reserved}, not 0")
    if public_key is None:
        return
    from planformat import signing

    expected_id = signing.key_id(public_key)
    if key_id != expected_id:
        raise PlanSignatureError(
            f"{where} {offset + 8:,}: signed with key {key_id.hex()}, required is key "
            f"{expected_id.hex()}; get a plan signed with that key, or check the key file"
        )
    if not signing.verify(signed_message(head), signature, public_key):
        raise PlanSignatureError(
            f"{where} {offset + 24:,}: the signature does not fit this plan's header and table "
            f"(key {key_id.hex()}); do not use the plan, fetch it again from its source"
        )
