"""What the application is put together from, made from its settings."""

from dataclasses import dataclass, field
from typing import Self

from api.http.near import Near
from api.http.observation import Observer, Outlets
from api.paper.workbench import Workbench
from api.settings import Settings
from persistence.backup.proofs import ProvenBackup
from persistence.change_feed import ChangeFeed
from persistence.login_attempts import LoginAttempts
from persistence.postgres.database import Database, Reader
from persistence.postgres.deadline import stop_clock
from persistence.postgres.replica import Replica
from persistence.sessions import Sessions
from security.admission import Admission
from security.counters import CounterStore
from security.fences import Fences
from security.passwords import Passwords
from security.tokens import TokenIssuer


@dataclass(frozen=True)
class Parts:
    """What an application is put together from, one of each."""

    settings: Settings
    database: Database
    store: CounterStore
    sessions: Sessions
    issuer: TokenIssuer
    admission: Admission
    attempts: LoginAttempts
    passwords: Passwords
    change_feed: ChangeFeed
    near: Near | None
    outlets: Outlets
    observer: Observer
    proven_backup: ProvenBackup = field(default_factory=ProvenBackup)
    # One each: at the full hour all calendars ask, and the desk prints nevertheless.
    printer: Workbench = field(default_factory=Workbench)
    calendar_writer: Workbench = field(default_factory=Workbench)

    @classmethod
    def of(cls, settings: Settings, outlets: Outlets) -> Self:
        """Opens no connection yet."""
        database = Database(settings.database_url)
        store = CounterStore.connect(settings.redis_url)
        sessions = Sessions(database.reader, settings.idle_lifetime)
        issuer = TokenIssuer(
            settings.secret_key, settings.algorithm, settings.access_lifetime, settings.secret_key_previous
        )
        admission = Admission(
            store,
            sessions.find,
            limit=settings.rate_limit_per_minute,
            tombstone_seconds=int(settings.access_lifetime.total_seconds()),
        )
        attempts = LoginAttempts(
            Reader(database.writes),
            store,
            settings.login_attempts,
            settings.login_window_seconds,
            settings.login_failures_per_address,
        )
        passwords = Passwords(refuse_common=settings.refuse_common_passwords, tell_seconds=stop_clock)
        near = None
        if settings.database_read_url:
            near = Near(Replica(settings.database_read_url, database.reader), Fences(store))
        change_feed = ChangeFeed(database.reader, settings.idle_lifetime, near.replica if near else None)
        observer = Observer.through(outlets, log_requests=settings.log_requests)
        security = sessions, issuer, admission, attempts, passwords
        return cls(settings, database, store, *security, change_feed, near, outlets, observer)
