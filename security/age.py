"""Files that only the holder of a key can read, in the age format (age-encryption.org), which `age` and
`rage` read as well.

A recipient (`age1…`) is public, and can only encrypt; an identity (`AGE-SECRET-KEY-1…`) decrypts. Whatever is
decrypted is authenticated in pieces of 64 KiB: a changed, cut or lengthened file is an AgeError, at the piece
that is wrong. What came before it was passed on already, so a result counts only once `decrypt` has returned.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyrage

EXAMPLE = "age1… as `medisecure backup-keygen` prints it"


class AgeError(Exception):
    """It cannot be encrypted, or not be decrypted with these identities; the message says why."""


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Target(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Remembered:
    """A target that keeps the error of a write: pyrage makes words of it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            self.target.write(data)
        except BaseException as error:
            self.error = error
            raise
        return len(data)


def make_identity() -> tuple[str, str]:
    """A new identity, and its recipient."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def problems_of_recipients(recipients: Sequence[str]) -> Iterator[str]:
    for recipient in recipients:
        try:
            pyrage.x25519.Recipient.from_str(recipient)
        except pyrage.RecipientError:
            what = "holds an identity, which is secret and" if is_identity(recipient) else "holds what"
            yield f"{what} is no recipient of age; one is {EXAMPLE}"


def is_identity(text: str) -> bool:
    return text.upper().startswith("AGE-SECRET-KEY-")


def read_identities(text: str) -> list[str]:
    """The identities in the text of a file that `medisecure backup-keygen` or `age-keygen` wrote. Raises
    AgeError, without a word of what is in it."""
    lines = [line.strip() for line in text.splitlines()]
    identities = [line for line in lines if line and not line.startswith("#")]
    if not identities:
        raise AgeError("there is no identity in it")
    for identity in identities:
        try:
            pyrage.x25519.Identity.from_str(identity)
        except pyrage.IdentityError:
            raise AgeError("a line of it is neither an identity (AGE-SECRET-KEY-1…) nor a comment") from None
    return identities


def encrypt(source: Source, target: Target, recipients: Sequence[str]) -> None:
    """Each of the recipients can read the result alone. Raises AgeError, or what `target` raises."""
    remembered = Remembered(target)
    try:
        keys = [pyrage.x25519.Recipient.from_str(recipient) for recipient in recipients]
        pyrage.encrypt_io(source, remembered, keys)
    except (pyrage.RecipientError, pyrage.EncryptError, OSError) as error:
        raise remembered.error or AgeError(f"it cannot be encrypted: {error}") from error


def decrypt(source: Source, target: Target, identities: Sequence[str]) -> None:
    """Raises AgeError, or what `target` raises."""
    remembered = Remembered(target)
    try:
        keys = [pyrage.x25519.Identity.from_str(identity) for identity in identities]
        pyrage.decrypt_io(source, remembered, keys)
    except pyrage.DecryptError as error:
        known = "No matching keys" in str(error)
        reason = "it was encrypted for another identity" if known else "it is no whole file of age"
        raise AgeError(f"it cannot be decrypted: {reason}") from error
    except OSError as error:
        raise remembered.error or AgeError(
            "it cannot be decrypted: a byte of it is changed, or its end is missing"
        ) from error
