"""The login limits (requirement, "Rate Limiting" and "LoginAttempt"; ASVS 5.0, 6.3.1).

PostgreSQL counts, for all instances. Redis gets a copy of that in the requirement's shape, and decides
nothing: people sign in while it is away, and it unlocks nobody when it comes back empty.
"""

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from hashlib import sha256
from math import ceil
from typing import NamedTuple, TypedDict
from uuid import uuid4

from msgspec import Struct
from sqlalchemy import Interval, bindparam, delete, func, select, text

from persistence.models import LoginCounter
from persistence.postgres.background import repeat
from persistence.postgres.database import Reader, Transaction
from persistence.postgres.statements import Query, Statement
from security.admission import Count, network_of
from security.availability import BusyError
from security.counters import AttemptCount, CounterStore

# After which an attempt is given back that has neither failed nor succeeded: its process was killed.
LEASE_SECONDS = 120
TIDY_INTERVAL_SECONDS = 10.0
KEPT = timedelta(minutes=1)  # after its window, for which a row stays, so that its version grows on
MAX_OWED = 10_000  # attempts; beyond them the oldest wait for the end of their lease

log = logging.getLogger("medisecure.logins")


class CounterRow(NamedTuple):
    """A counter after a change. `taken`: failures, and attempts under way. `first_attempt`: seconds since the
    epoch."""

    failures: int
    taken: int
    first_attempt: int
    left_ms: int
    version: int


class OfEmail(TypedDict):
    """`email`: the key of its counter."""

    email: bytes


class OfAttempt(OfEmail):
    """`address`: the key of its counter. `window`: seconds."""

    address: bytes
    attempt: str
    window: int


class Taken(OfAttempt):
    lease: int
    email_limit: int
    address_limit: int


class Lapsed(TypedDict):
    kept: timedelta


# Of a row `a`. PostgreSQL's clock counts, which all instances share, and as it is once the row is locked.
NOW = "clock_timestamp()"
LIVING = f"""
    (SELECT coalesce(jsonb_object_agg(one.id, one.until), '{{}}') FROM jsonb_each(a.pending) AS one(id, until)
     WHERE one.until::float8 > extract(epoch FROM {NOW}))"""  # noqa: S608  # SQL of this module
HAS_ENDED = f"a.ends_at <= {NOW}"
STARTS_ANEW = f"({HAS_ENDED} OR a.failures = 0 AND {LIVING} = '{{}}')"
TAKEN = "a.failures + (SELECT count(*)::int FROM jsonb_object_keys({}))"
STATE = f"""
    a.failures, {TAKEN.format(LIVING)} AS taken,
    floor(extract(epoch FROM a.began_at))::bigint AS first_attempt,
    greatest(0, ceil(extract(epoch FROM a.ends_at - {NOW}) * 1000))::bigint AS left_ms, a.version"""
LEASE = f"jsonb_build_object(CAST(:attempt AS text), extract(epoch FROM {NOW}) + CAST(:lease AS int))"


def below(limit: str) -> str:
    return f"{HAS_ENDED} OR {TAKEN.format(LIVING)} < CAST(:{limit} AS int)"


# Also where a standby has taken over that lacks the last changes.
NEXT_VERSION = f"version = greatest(a.version + 1, (extract(epoch FROM {NOW}) * 1000000)::bigint)"
# The commit waits for no disk and no standby, and so does nobody who wants the row next. All that a crash can
# lose of it: attempts that it has ended itself, and that a success was one. A failure is stored by KEEP.
AT_ONCE = "set_config('synchronous_commit', 'off', true)"


def counting(key: str, failed: int, *, pending: str = "'{}'", only_if: str = "true", after: str) -> str:
    """The SQL that ends the attempt on a counter, or with `pending` begins it, and counts it if it `failed`.
    `after`: what must have been done before; so counters are always locked in one order."""
    return f"""
    INSERT INTO login_counters AS a (key, failures, pending, began_at, ends_at)
    SELECT CAST(:{key} AS bytea), {failed}, {pending}, {NOW},
           {NOW} + make_interval(secs => CAST(:window AS int))
    FROM {after}
    ON CONFLICT (key) DO UPDATE SET
        failures = CASE WHEN {HAS_ENDED} THEN 0 ELSE a.failures END + excluded.failures,
        pending = (CASE WHEN {HAS_ENDED} THEN '{{}}' ELSE {LIVING} END - CAST(:attempt AS text))
                  || excluded.pending,
        began_at = CASE WHEN {STARTS_ANEW} THEN excluded.began_at ELSE a.began_at END,
        ends_at = CASE WHEN {STARTS_ANEW} THEN excluded.ends_at ELSE a.ends_at END,
        {NEXT_VERSION}
    WHERE {only_if}
    RETURNING {STATE}"""  # noqa: S608  # SQL of this module


def forgetting(after: str) -> str:
    return f"""
    INSERT INTO login_counters AS a (key, began_at, ends_at)
    SELECT CAST(:email AS bytea), {NOW}, {NOW} FROM {after}
    ON CONFLICT (key) DO UPDATE SET failures = 0, pending = '{{}}', ends_at = {NOW}, {NEXT_VERSION}
    RETURNING {STATE}"""  # noqa: S608  # SQL of this module


def both(of_email: str, of_address: str) -> str:
    return f"""
    WITH by_email AS ({of_email}), by_address AS ({of_address})
    SELECT * FROM by_email UNION ALL SELECT * FROM by_address"""  # noqa: S608  # SQL of this module


def taking(key: str, after: str) -> str:
    return counting(key, 0, pending=LEASE, only_if=below(f"{key}_limit"), after=after)


# No row: the e-mail is locked. One: the address is, and the e-mail has counted the attempt.
TAKE = Query(CounterRow, Taken, text(both(taking("email", AT_ONCE), taking("address", "by_email"))))
KEPT_ATTEMPT = both(counting("email", 1, after="now()"), counting("address", 1, after="by_email"))
KEEP = Query(CounterRow, OfAttempt, text(KEPT_ATTEMPT))
OF_ADDRESS = counting("address", 0, after="by_email")
GIVE_BACK = Query(CounterRow, OfAttempt, text(both(counting("email", 0, after=AT_ONCE), OF_ADDRESS)))
CLEAR = Query(CounterRow, OfAttempt, text(both(forgetting(AT_ONCE), OF_ADDRESS)))
FORGET = Query(CounterRow, OfEmail, text(forgetting("now()")))
LOOKING = f"SELECT {STATE} FROM login_counters AS a WHERE key = CAST(:email AS bytea)"  # noqa: S608  # as above
LOOK = Query(CounterRow, OfEmail, text(LOOKING))
LAPSED = (
    select(LoginCounter.key)
    .where(LoginCounter.ends_at < func.clock_timestamp() - bindparam("kept", type_=Interval))
    .with_for_update(skip_locked=True)
)
DELETE_LAPSED = Statement(Lapsed, delete(LoginCounter).where(LoginCounter.key.in_(LAPSED)))


class Attempt(Struct):
    """One attempt of the e-mail and one of the address; and the e-mail's count with it. `keys`: of both
    counters, as Redis has them. `is_open`: it has neither failed nor succeeded."""

    id: str
    keys: tuple[str, str]
    count: Count
    is_open: bool = True


class LoginAttempts:
    """Failed sign-ins per e-mail, known or not, and per address, in fixed windows that begin with the first.

    What raises PostgreSQL's errors raises them where PostgreSQL cannot count: then nobody can sign in.
    """

    def __init__(
        self, reader: Reader, store: CounterStore, limit: int, window: int, limit_of_address: int
    ) -> None:
        """`reader`: of the primary, although it only writes. `limit` attempts of an e-mail and
        `limit_of_address` of an address per `window` seconds."""
        self.reader = reader
        self.store = store
        self.limit = limit
        self.window = window
        self.limit_of_address = limit_of_address
        self.owed: deque[Attempt] = deque(maxlen=MAX_OWED)  # which PostgreSQL could not be told of
        self.failed = 0  # since the process began

    async def take(self, email: str, address: str) -> Attempt:
        """Count an attempt before its password is checked, so that attempts at the same time are counted too.
        Once a limit is reached, attempts neither extend the window nor raise the count. The caller ends each
        attempt with `keep`, `give_back` or `clear`."""
        keys = (f"login:attempts:{email}", f"login:failures:{network_of(address)}")
        attempt = Attempt(uuid4().hex, keys, Count(0, self.limit, 1, self.window))
        limits = Taken(
            **self.values_of(attempt),
            lease=LEASE_SECONDS,
            email_limit=self.limit,
            address_limit=self.limit_of_address,
        )
        try:
            return await self.try_to_take(attempt, limits)
        except BaseException:  # PostgreSQL may have counted it all the same
            self.owed.append(attempt)
            raise

    async def try_to_take(self, attempt: Attempt, limits: Taken) -> Attempt:
        counters = TAKE.rows(await self.reader.once(TAKE, limits, alive=True))
        if len(counters) == len(attempt.keys):
            return self.counted(attempt, counters[0].taken, counters[0].left_ms)
        if counters:
            deciding = (await self.end(attempt, GIVE_BACK))[-1]
        else:
            deciding = (await self.reader.rows(LOOK, OfEmail(email=limits["email"])))[0]
            await self.copy(attempt.keys[:1], [deciding])
        return self.counted(attempt, self.limit + 1, deciding.left_ms)

    async def keep(self, attempt: Attempt) -> None:
        """The attempt has failed, and counts until the window ends."""
        await self.end(attempt, KEEP)
        self.failed += 1

    async def give_back(self, attempt: Attempt) -> None:
        """The attempt ended without a check of the password, and does not count. Does nothing to one that was
        kept or cleared. Where PostgreSQL is away, it is told later."""
        if attempt.is_open:
            await self.end_sometime(attempt, GIVE_BACK)

    async def clear(self, attempt: Attempt) -> None:
        """The attempt succeeded: the e-mail's count begins anew, and the address gets this attempt back."""
        await self.end_sometime(attempt, CLEAR)

    async def forgive(self, transaction: Transaction, *emails: str) -> None:
        """An account has another password or e-mail, if the transaction is stored, and the failed attempts
        were about the old one. In one order, so that two transactions cannot deadlock."""
        for email in sorted(emails):
            key = f"login:attempts:{email}"
            counters = await transaction.rows(FORGET, OfEmail(email=digest_of(key)))
            transaction.after_commit(partial(self.copy, [key], counters))

    async def end(self, attempt: Attempt, how: Query[OfAttempt, CounterRow]) -> list[CounterRow]:
        """The counters as they are then, the e-mail's first."""
        counters = how.rows(await self.reader.once(how, self.values_of(attempt), alive=True))
        attempt.is_open = False
        await self.copy(attempt.keys, counters)
        return counters

    async def end_sometime(self, attempt: Attempt, how: Query[OfAttempt, CounterRow]) -> None:
        """Never raises. What PostgreSQL cannot be told now is given back by `tidy`."""
        try:
            await self.end(attempt, how)
        except Exception as error:  # of PostgreSQL or the way there, which the request has met or will meet
            log.warning("An attempt to sign in is given back later: %s", type(error).__name__)
            self.owed.append(attempt)

    async def tidy(self) -> None:
        """Give back what is owed, and delete what has lapsed."""
        while self.owed:
            await self.end(self.owed[0], GIVE_BACK)
            self.owed.popleft()
        await self.reader.run(DELETE_LAPSED, Lapsed(kept=KEPT))

    async def copy(self, keys: Sequence[str], counters: Sequence[CounterRow]) -> None:
        """Let Redis, where it is there, show what PostgreSQL has counted."""
        counts = [
            AttemptCount(key, row.failures, row.first_attempt, row.left_ms, row.version)
            for key, row in zip(keys, counters, strict=True)
        ]
        with suppress(BusyError):
            await self.store.outage.ask(lambda: self.store.copy_attempts(counts))

    def values_of(self, attempt: Attempt) -> OfAttempt:
        by_email, by_address = map(digest_of, attempt.keys)
        return OfAttempt(email=by_email, address=by_address, attempt=attempt.id, window=self.window)

    def counted(self, attempt: Attempt, count: int, left_ms: int) -> Attempt:
        attempt.count = Count(count, self.limit, max(1, ceil(left_ms / 1000)), self.window)
        return attempt


def digest_of(key: str) -> bytes:
    """Of the same length for every e-mail, and no e-mail: people type passwords into the wrong field."""
    return sha256(key.encode()).digest()


async def tidy_periodically(attempts: LoginAttempts) -> None:
    """For as long as the service runs. If that fails, lapsed rows stay where they do no harm."""

    async def act() -> tuple[bool, str]:
        await attempts.tidy()
        return False, ""

    await repeat(act, TIDY_INTERVAL_SECONDS, log, "Attempts to sign in could not be tidied up: %s")
