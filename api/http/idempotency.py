"""What is safe to repeat: a client that does not know whether its request has arrived sends it again with the
same `Idempotency-Key`, and the row that the first one made is made once."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Self
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from api.http.errors import AnyRequest, BadRequest
from api.http.headers import RawHeaders, header_lines, header_value
from api.http.problems import ErrorCode, Fault
from api.http.requests import StrictRequest
from persistence import idempotency
from persistence.postgres.database import Reader, Transaction
from persistence.postgres.deadline import REQUEST_SECONDS, seconds_for
from security.fingerprints import Fingerprints

NAME = "Idempotency-Key"
FIELD = NAME.lower().encode()
VISIBLE = re.compile(r"[!-~]{1,255}")
STATE = "repeats"  # the key of a request's state


def find_key_faults(request: StrictRequest) -> Iterator[Fault]:
    """A rule for `headers`: one key at most, of visible characters. An anonymous caller's is ignored."""
    if request.caller is None:
        return
    lines = header_lines(request.scope, FIELD)
    if len(lines) > 1:
        yield Fault(parameter=NAME, code=ErrorCode.REPEATED, detail="may be given only once")
    elif lines and not VISIBLE.fullmatch(lines[0]):
        detail = "must be 1 to 255 visible characters of ASCII"
        yield Fault(parameter=NAME, code=ErrorCode.BAD_FORMAT, detail=detail)


IDEMPOTENCY_KEY = {NAME: find_key_faults}
KEY_USED = Fault(parameter=NAME, code=ErrorCode.IDEMPOTENCY_KEY_USED, detail="was used for another request")


class Retries:
    """Tells keys and requests from others by their fingerprints alone; and lets requests of this process with
    one key go one after the other: those that wait hold no connection, and hash no password."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        self.fingerprints = fingerprints
        self.locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    def under(cls, secret_key: str, previous: str | None) -> Self:
        return cls(Fingerprints(secret_key, previous))

    def keys_of(self, request: StrictRequest) -> list[bytes]:
        """The digests of the request's key; none where it has no key that counts."""
        caller = request.caller
        if caller is None or NAME not in request.policy.headers:
            return []
        key = header_value(request.scope, FIELD)
        return [] if key is None else self.fingerprints.of(b"key", caller.id.bytes, key.encode())

    async def fingerprints_of(self, request: StrictRequest) -> list[bytes]:
        """Of the request as a whole; the same for equal JSON, however it is written."""
        body = msgspec.json.encode(msgspec.json.decode(await request.body()), order="sorted")
        return self.fingerprints.of(b"request", request.method.encode(), request.scope["raw_path"], body)

    def turn(self, request: StrictRequest) -> AbstractAsyncContextManager[None]:
        """For the time that the request takes. Raises TimeoutError where the others take too long."""
        keys = self.keys_of(request)
        return self.turn_of(keys[0]) if keys else nullcontext()

    @asynccontextmanager
    async def turn_of(self, key: bytes) -> AsyncIterator[None]:
        lock = self.locks.setdefault(key, asyncio.Lock())
        async with asyncio.timeout(seconds_for(REQUEST_SECONDS)):
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()


async def is_claimed(request: StrictRequest, reader: Reader) -> bool:
    """Whether an earlier request had the key, as it seems: for what should not be done in vain."""
    keys = request.service(Retries).keys_of(request)
    return bool(keys) and await idempotency.find(reader, request.user.id, keys) is not None


async def claim_key(transaction: Transaction, request: StrictRequest, row_id: UUID) -> UUID | None:
    """Claim the request's key, if it has one, for the row that it is about to make. Returns the id of the row
    that an earlier one has made instead, which is the answer then. Raises 400 if that was not the same
    request."""
    retries = request.service(Retries)
    keys = retries.keys_of(request)
    if not keys:
        return None
    fingerprints = await retries.fingerprints_of(request)
    earlier = await idempotency.claim(transaction, request.user.id, keys, fingerprints[0], row_id)
    if earlier is None:
        return None
    if earlier.fingerprint not in fingerprints:
        raise BadRequest(KEY_USED.sentence, KEY_USED.code, [KEY_USED])
    request.scope["state"][STATE] = True
    return earlier.row_id


def headers_of_repeat(request: AnyRequest) -> RawHeaders:
    """What says that the answer is a row that an earlier request has made."""
    return [(b"idempotency-replayed", b"true")] if STATE in request.scope["state"] else []
