"""Ed25519 keys and signatures, and key files. PyNaCl is imported only when one is made or checked.

A key file is text: a line `edgeplan-private-key-1` or `edgeplan-public-key-1`, then the 32 bytes of
the key in base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from types import ModuleType

from planformat.errors import PlanError, PlanSignatureError

KEY_BYTES = 32
_PRIVATE = "edgeplan-private-key-1"
_PUBLIC = "edgeplan-public-key-1"


def generate_key() -> bytes:
    """A new private key: 32 random bytes from the operating system."""
    return os.urandom(KEY_BYTES)


def public_key_of(private_key: bytes) -> bytes:
    """The 32 bytes of the public key that belongs to a private key."""
    _check_key(private_key, "private")
    return bytes(_nacl_signing().SigningKey(private_key).verify_key)


def key_id(public_key: bytes) -> bytes:
    """16 bytes that name a public key: the first half of its SHA-256."""
    _check_key(public_key, "public")
    return hashlib.sha256(public_key).digest()[:16]


def sign(message: bytes, private_key: bytes) -> bytes:
    """The 64 bytes of the Ed25519 signature (RFC 8032) of a message."""
    _check_key(private_key, "private")
    return bytes(_nacl_signing().SigningKey(private_key).sign(message).signature)


def verify(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether the signature of the message was made with the key's private half."""
    _check_key(public_key, "public")
    nacl_signing = _nacl_signing()
    from nacl.exceptions import BadSignatureError

    try:
        nacl_signing.VerifyKey(public_key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def save_private_key(private_key: bytes, path: str | os.PathLike[str]) -> None:
    """Write a private key file that only its owner can read. An existing file is kept.

    Raises:
        PlanError: the file exists or cannot be written.
    """
    _check_key(private_key, "private")
    _write_key(_PRIVATE, private_key, path, mode=0o600)


def save_public_key(public_key: bytes, path: str | os.PathLike[str]) -> None:
    """Write a public key file; errors as in `save_private_key`."""
    _check_key(public_key, "public")
    _write_key(_PUBLIC, public_key, path, mode=0o644)


def load_private_key(path: str | os.PathLike[str]) -> bytes:
    """The 32 bytes of a private key file.

    Raises:
        PlanSignatureError: unreadable file, or not a private key.
    """
    return _read_key(_PRIVATE, path)


def load_public_key(path: str | os.PathLike[str]) -> bytes:
    """The 32 bytes of a public key file; errors as in `load_private_key`."""
    return _read_key(_PUBLIC, path)


def _nacl_signing() -> ModuleType:
    try:
        import nacl.signing
    except ImportError as error:
        raise PlanSignatureError(
            "signatures need the package PyNaCl, which is not installed; "
            "install it with: pip install 'edgeplan[sign]'"
        ) from error
    module: ModuleType = nacl.signing
    return module


def _check_key(key: bytes, what: str) -> None:
    if len(key) != KEY_BYTES:
        raise PlanSignatureError(
            f"a {what} key has {KEY_BYTES} bytes, this one has {len(key)}; "
            "read it from a key file made by 'edgeplan keygen'"
        )


def _write_key(head: str, key: bytes, path: str | os.PathLike[str], mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{head}\n{base64.b64encode(key).decode('ascii')}\n")
    except FileExistsError as error:
        raise PlanError(
            f"key file {os.fspath(path)}: exists already and is not overwritten; choose another "
            "name or remove it first"
        ) from error
    except OSError as error:
        raise PlanError(f"key file {os.fspath(path)}: cannot be written: {error}") from error


def _read_key(head: str, path: str | os.PathLike[str]) -> bytes:
    where = f"key file {os.fspath(path)}"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise PlanSignatureError(f"{where}: cannot be read: {error}") from error
    lines = content[:1024].decode("ascii", "replace").split()
    if not lines or lines[0] != head:
        found = lines[0][:40] if lines else "an empty file"
        raise PlanSignatureError(f"{where}, line 1: expected '{head}', found '{found}'")
    try:
        key = base64.b64decode(lines[1] if len(lines) == 2 else "", validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise PlanSignatureError(
            f"{where}, line 2: expected {KEY_BYTES} bytes in base64; make keys with "
            "'edgeplan keygen'"
        )
    return key
