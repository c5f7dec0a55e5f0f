"""Signatures cover the whole plan; a required one must be there and right."""

from __future__ import annotations

import hashlib
import os
import stat
import sys

import pytest
from support.plans import GOLDEN_KEY, patched, reseal, sample_plan, section_range, tiny_plan

from planformat import signing
from planformat.container import SectionKind
from planformat.errors import PlanError, PlanFormatError, PlanSignatureError, PlanVersionError
from planformat.reader import open_plan, read_container, read_plan
from planformat.writer import plan_bytes, save_plan, sign_plan

PUBLIC = signing.public_key_of(GOLDEN_KEY)
OTHER_KEY = bytes(range(1, 33))
SIGNED = plan_bytes(sample_plan(), signing_key=GOLDEN_KEY)
UNSIGNED = plan_bytes(sample_plan())


def resum(data: bytes) -> bytes:
    """The signature section's own hash made right."""
    begin, end = section_range(data, SectionKind.SIGNATURE)
    digest = hashlib.sha256(data[begin : end - 32]).digest()
    return patched(data, end - 32, digest)


def test_rfc_8032_vector():
    key = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert signing.public_key_of(key) == public
    assert signing.sign(b"\x72", key) == signature
    assert signing.verify(b"\x72", signature, public)
    assert not signing.verify(b"\x73", signature, public)


def test_signed_plan_is_read_with_and_without_the_key():
    assert read_plan(SIGNED, public_key=PUBLIC) == sample_plan()
    assert read_plan(SIGNED) == sample_plan()
    assert plan_bytes(sample_plan(), signing_key=GOLDEN_KEY) == SIGNED


def test_missing_signature():
    with pytest.raises(PlanSignatureError, match="a signature is required but the plan has none"):
        read_plan(UNSIGNED, public_key=PUBLIC)


def test_wrong_key():
    with pytest.raises(PlanSignatureError, match=r"signed with key .*, required is key"):
        read_plan(SIGNED, public_key=signing.public_key_of(OTHER_KEY))


def test_stripped_signature_cannot_hide():
    stripped = plan_bytes(read_plan(SIGNED))
    assert stripped == UNSIGNED
    with pytest.raises(PlanSignatureError, match="required"):
        read_plan(stripped, public_key=PUBLIC)


def test_signature_moved_from_another_plan():
    other = plan_bytes(tiny_plan(), signing_key=GOLDEN_KEY)
    begin, end = section_range(other, SectionKind.SIGNATURE)
    target, _ = section_range(SIGNED, SectionKind.SIGNATURE)
    moved = patched(SIGNED, target, other[begin:end])
    assert read_plan(moved) == sample_plan()
    with pytest.raises(PlanSignatureError, match="does not fit this plan's header"):
        read_plan(moved, public_key=PUBLIC)


def test_key_id_of_the_right_key_on_a_wrong_signature():
    forged = plan_bytes(sample_plan(), signing_key=OTHER_KEY)
    begin, _ = section_range(forged, SectionKind.SIGNATURE)
    forged = resum(patched(forged, begin + 8, signing.key_id(PUBLIC)))
    with pytest.raises(PlanSignatureError, match="does not fit"):
        read_plan(forged, public_key=PUBLIC)


def test_resealed_change_of_the_head_breaks_the_signature():
    changed = reseal(patched(SIGNED, 32, b"\x01"))
    assert read_plan(changed) == sample_plan()
    with pytest.raises(PlanSignatureError, match="does not fit"):
        read_plan(changed, public_key=PUBLIC)


def test_form_of_the_section_is_checked_without_a_key():
    begin, end = section_range(SIGNED, SectionKind.SIGNATURE)
    assert end - begin == 120
    for at in range(begin, end):
        with pytest.raises(PlanFormatError, match=r"section 'signature', byte .* SHA-256"):
            read_plan(patched(SIGNED, at, bytes([SIGNED[at] ^ 1])))
    with pytest.raises(PlanVersionError, match="algorithm 2, this reader knows only 1"):
        read_plan(resum(patched(SIGNED, begin, b"\x02")))
    with pytest.raises(PlanFormatError, match="reserved field is 1"):
        read_plan(resum(patched(SIGNED, begin + 4, b"\x01")))


def test_sign_plan_replaces_the_signature():
    assert sign_plan(UNSIGNED, GOLDEN_KEY) == SIGNED
    assert sign_plan(plan_bytes(sample_plan(), signing_key=OTHER_KEY), GOLDEN_KEY) == SIGNED


def test_sign_plan_refuses_to_lose_what_it_does_not_know():
    newer = reseal(patched(UNSIGNED, 32, b"\x01"))
    assert read_container(newer).optional_features == 1
    with pytest.raises(PlanFormatError, match="would be lost"):
        sign_plan(newer, GOLDEN_KEY)


def test_open_and_save_take_keys(tmp_path):
    save_plan(sample_plan(), tmp_path / "a.plan", signing_key=GOLDEN_KEY)
    with open_plan(tmp_path / "a.plan", public_key=PUBLIC) as opened:
        assert opened.plan == sample_plan()


def test_key_files(tmp_path):
    private, public = tmp_path / "k.key", tmp_path / "k.pub"
    key = signing.generate_key()
    assert len(key) == 32
    assert key != signing.generate_key()
    signing.save_private_key(key, private)
    signing.save_public_key(signing.public_key_of(key), public)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.read_text().splitlines()[0] == "edgeplan-private-key-1"
    assert signing.load_private_key(private) == key
    assert signing.load_public_key(public) == signing.public_key_of(key)
    with pytest.raises(PlanSignatureError, match="line 1: expected 'edgeplan-public-key-1'"):
        signing.load_public_key(private)
    with pytest.raises(PlanError, match="is not overwritten"):
        signing.save_private_key(key, private)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 10,
        b"edgeplan-public-key-1\n",
        b"edgeplan-public-key-1\nAAAA\n",
        b"edgeplan-public-key-1\n!!!!\n",
        b"edgeplan-public-key-1\n" + b"A" * 44 + b"\nmore\n",
    ],
)
def test_malformed_key_file(tmp_path, content):
    (tmp_path / "k.pub").write_bytes(content)
    with pytest.raises(PlanSignatureError, match=r"k\.pub, line [12]: expected"):
        signing.load_public_key(tmp_path / "k.pub")
    with pytest.raises(PlanSignatureError, match="cannot be read"):
        signing.load_public_key(tmp_path / "none.pub")


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 64])
def test_key_of_a_wrong_length(key):
    with pytest.raises(PlanSignatureError, match=f"has 32 bytes, this one has {len(key)}"):
        plan_bytes(tiny_plan(), signing_key=key)
    with pytest.raises(PlanSignatureError, match="has 32 bytes"):
        read_plan(SIGNED, public_key=key)


def test_without_pynacl_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nacl", None)
    monkeypatch.setitem(sys.modules, "nacl.signing", None)
    assert read_plan(SIGNED) == sample_plan()
    with pytest.raises(PlanSignatureError, match=r"pip install 'edgeplan\[sign\]'"):
        read_plan(SIGNED, public_key=PUBLIC)
    with pytest.raises(PlanSignatureError, match="PyNaCl"):
        plan_bytes(tiny_plan(), signing_key=GOLDEN_KEY)


def test_unwritable_key_file(tmp_path):
    with pytest.raises(PlanError, match="cannot be written"):
        signing.save_private_key(GOLDEN_KEY, os.fspath(tmp_path / "none" / "k"))
