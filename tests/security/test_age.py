"""security/age.py: what is encrypted comes back whole, or not at all."""

import io
import os

import pytest

from security.age import (
    AgeError,
    decrypt,
    encrypt,
    make_identity,
    problems_of_recipients,
    read_identities,
)

TEXT = os.urandom(200_000)  # four pieces of 64 KiB


def encrypted(*recipients: str, text: bytes = TEXT) -> bytes:
    target = io.BytesIO()
    encrypt(io.BytesIO(text), target, recipients)
    return target.getvalue()


def decrypted(data: bytes, *identities: str) -> bytes:
    target = io.BytesIO()
    decrypt(io.BytesIO(data), target, identities)
    return target.getvalue()


def test_every_recipient_alone_can_decrypt() -> None:
    (one, to_one), (other, to_other), (stranger, _) = make_identity(), make_identity(), make_identity()
    data = encrypted(to_one, to_other)
    assert decrypted(data, one) == decrypted(data, other) == decrypted(data, stranger, one) == TEXT
    assert data.startswith(b"age-encryption.org/v1\n")
    assert TEXT[:32] not in data
    with pytest.raises(AgeError, match="for another identity"):
        decrypted(data, stranger)


@pytest.mark.parametrize("place", [0, 30, 70, 150, 190, 300, 70_000, -1])
def test_one_changed_byte_is_an_error(place: int) -> None:
    identity, recipient = make_identity()
    data = bytearray(encrypted(recipient))
    data[place] ^= 1
    with pytest.raises(AgeError):
        decrypted(bytes(data), identity)


@pytest.mark.parametrize("kept", [0, 10, 200, 216 + 65_552, 100_000])
def test_a_cut_or_lengthened_file_is_an_error(kept: int) -> None:
    identity, recipient = make_identity()
    data = encrypted(recipient)
    for wrong in (data[:kept], data + b"x"):
        with pytest.raises(AgeError):
            decrypted(wrong, identity)


class Full(io.BytesIO):
    def write(self, _: object) -> int:
        raise OSError(28, "No space left on device")


def test_an_error_of_the_target_stays_what_it_is() -> None:
    identity, recipient = make_identity()
    with pytest.raises(OSError, match="No space left") as full:
        encrypt(io.BytesIO(TEXT), Full(), [recipient])
    assert full.value.errno == 28
    with pytest.raises(OSError, match="No space left"):
        decrypt(io.BytesIO(encrypted(recipient)), Full(), [identity])


def test_nothing_is_encrypted_for_nobody() -> None:
    for recipients in ([], ["age1nobody"]):
        with pytest.raises(AgeError):
            encrypt(io.BytesIO(TEXT), io.BytesIO(), recipients)


def test_a_recipient_is_judged_before_it_is_used() -> None:
    identity, recipient = make_identity()
    assert list(problems_of_recipients([recipient])) == []
    [problem] = problems_of_recipients([recipient, "age1" + "x" * 58])
    assert problem.startswith("holds what is no recipient of age; one is age1…")
    [problem] = problems_of_recipients([identity])
    assert problem.startswith("holds an identity, which is secret and is no recipient")
    assert identity not in problem


def test_an_identity_file_may_have_comments_and_several_identities() -> None:
    (one, _), (other, _) = make_identity(), make_identity()
    assert read_identities(f"# made today\n{one}\n\n  {other}\n") == [one, other]
    with pytest.raises(AgeError, match="no identity in it"):
        read_identities("# nothing\n")
    with pytest.raises(AgeError, match="neither an identity") as refused:
        read_identities(f"{one}\nAGE-SECRET-KEY-1WRONG\n")
    assert "WRONG" not in str(refused.value)
