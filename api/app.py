"""create_app puts the application together from its settings."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from prometheus_client import CollectorRegistry

from api.absences import AbsenceController
from api.accounts import SessionService
from api.appointments import AppointmentController
from api.audit import AuditController
from api.auth import AuthController
from api.calendar_feeds import CalendarFeedController, FeedPolicy
from api.changes import ChangeController
from api.clinic import ClinicController
from api.contract import ContractController
from api.dashboard import DashboardController
from api.day_sheets import DaySheetController
from api.doctors import DoctorController
from api.downtime.notes import enter_notes_at_start
from api.duplicates import DuplicateController
from api.health import HealthController
from api.history import HistoryController
from api.hours import HoursController
from api.http.auditing import record_refusal
from api.http.conditional import MatchPolicy
from api.http.cors import Origins
from api.http.csrf import OriginCheckMiddleware
from api.http.errors import handle_exception
from api.http.exposition import MetricsMiddleware
from api.http.fields import MAX_BODY_BYTES
from api.http.gauges import Gauges, Sources
from api.http.idempotency import Retries
from api.http.logs import LogFormat, configure_logging
from api.http.metrics import PROCESS_REGISTRY
from api.http.near import FenceMiddleware
from api.http.observation import Outlets
from api.http.operation import check_request
from api.http.outermost import OutermostMiddleware
from api.http.proxies import TrustedProxies
from api.http.reauthorization import ReauthorizationMiddleware, caller_to_recheck, stop_rechecking
from api.http.requests import StrictRequest
from api.http.server import freeze_garbage_collector
from api.http.services import Services
from api.http.traces import trace_if_wanted
from api.links import LinkController
from api.merges import MergeController
from api.parts import Parts
from api.patients import PatientController
from api.reassignments import ReassignmentController
from api.record_versions import RecordVersionController
from api.records import RecordController
from api.registration import RegistrationController, RegistrationPolicy
from api.schedule.known import KnownHours
from api.sessions import SessionController
from api.settings import Settings, SettingsError
from api.slots import SlotController
from api.users import UserController
from api.visits import VisitController
from persistence.audit import Journal
from persistence.audit_chain import Key, seal_periodically
from persistence.changes import purge_periodically as purge_changes_periodically
from persistence.clock import follow_clock
from persistence.closing import Closing
from persistence.idempotency import purge_periodically
from persistence.login_attempts import tidy_periodically
from persistence.no_shows import NoShows, mark_periodically
from persistence.postgres.counters import fold_periodically
from persistence.postgres.database import Reader, Transaction
from security import clock
from security.authentication import authentication_middleware
from security.guards import require_authentication
from security.rate_limit import rate_limit

CONTROLLERS = (
    AuthController,
    RegistrationController,
    UserController,
    PatientController,
    DuplicateController,
    LinkController,
    DoctorController,
    HoursController,
    AbsenceController,
    AppointmentController,
    VisitController,
    DaySheetController,
    ReassignmentController,
    CalendarFeedController,
    HistoryController,
    MergeController,
    RecordController,
    RecordVersionController,
    DashboardController,
    ChangeController,
    ClinicController,
    AuditController,
    SessionController,
    SlotController,
    HealthController,
    ContractController,
)


def create_app(settings: Settings, *, is_local: bool = False, outlets: Outlets | None = None) -> Litestar:
    """`is_local`: only developers reach it, whose pages may come from any port of http://localhost.
    `outlets`: by default, nobody hears of its requests."""
    parts = Parts.of(settings, outlets or Outlets(CollectorRegistry()))
    origins = Origins(settings.cors_origins, any_local_port=is_local)
    app = Litestar(
        CONTROLLERS,
        request_class=StrictRequest,
        guards=[require_authentication],
        middleware=[
            DefineMiddleware(OriginCheckMiddleware, origins=origins),
            authentication_middleware(
                parts.issuer, parts.admission, parts.near.fences if parts.near else None
            ),
            *([DefineMiddleware(FenceMiddleware, near=parts.near)] if parts.near else ()),
            rate_limit(settings.rate_limit_per_minute).middleware,
            DefineMiddleware(ReauthorizationMiddleware),
        ],
        before_request=check_request,  # type: ignore[arg-type]  # of a StrictRequest, the request_class
        dependencies=dependencies_of(parts),
        exception_handlers={HTTPException: handle_exception, Exception: handle_exception},
        stores={"rate_limit": parts.store},
        after_exception=[record_refusal],
        state=State({"services": services_of(parts)}),
        lifespan=[lambda _: lifespan(parts)],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    inner = app.asgi_handler
    if settings.metrics_token:
        inner = MetricsMiddleware(inner, parts.outlets.registry, settings.metrics_token)
    app.asgi_handler = OutermostMiddleware(inner, origins, TrustedProxies(settings.trusted_proxies))
    return app


def dependencies_of(parts: Parts) -> dict[str, Provide]:
    """What a handler may ask for by the name of an argument."""
    settings = parts.settings
    session_service = SessionService(
        parts.issuer, parts.admission, settings.session_lifetime, settings.idle_lifetime
    )
    return {
        "reader": constant(parts.database.reader),
        "near_reader": near_reader(parts),
        "transaction": transaction_of(parts),
        "passwords": constant(parts.passwords),
        "attempts": constant(parts.attempts),
        "session_service": constant(session_service),
        "registration_policy": constant(RegistrationPolicy(frozenset(settings.auto_approve_roles))),
        "clinic": constant(settings.clinic),
        "change_feed": constant(parts.change_feed),
        "security_contact": constant(settings.security_contact),
        "printer": constant(parts.printer),
        "calendar_writer": constant(parts.calendar_writer),
        "feed_policy": constant(
            FeedPolicy(settings.public_url, settings.clinic_name, settings.calendar_names)
        ),
    }


def constant(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False, use_cache=True)


def near_reader(parts: Parts) -> Provide:
    """For reads that a replica may answer, where there is one."""
    near = parts.near
    if near is None:
        return constant(parts.database.reader)

    def provide(request: StrictRequest) -> Reader:
        return near.reader(request)

    return Provide(provide, sync_to_thread=False)


def transaction_of(parts: Parts) -> Provide:
    """One transaction for each request, which is stored after the handler and before the answer."""

    key = Key.of(parts.settings.audit_sealing_key)

    async def provide(request: StrictRequest) -> AsyncGenerator[Transaction, None]:
        closing = Closing(parts.sessions, caller_to_recheck(request), key)
        async with request.service(Retries).turn(request), parts.database.transaction(closing) as transaction:
            yield transaction
        if closing.has_checked_session:
            stop_rechecking(request)

    return Provide(provide)


def services_of(parts: Parts) -> Services:
    """What rules, hooks and middlewares, to which Litestar gives no dependencies, ask a request for."""
    journal = Journal(Reader(parts.database.journal))
    clinic, observer = parts.settings.clinic, parts.observer
    near = [parts.near.replica] if parts.near else []
    retries = Retries.under(parts.settings.secret_key, parts.settings.secret_key_previous)
    known = parts.store, parts.sessions, parts.passwords, parts.database, parts.proven_backup
    match_policy = MatchPolicy(parts.settings.require_if_match)
    return Services(*known, match_policy, clinic, journal, observer, retries, KnownHours(), *near)


@asynccontextmanager
async def lifespan(parts: Parts) -> AsyncIterator[None]:
    """Run what goes on beside the requests; at the end, close every connection."""
    if parts.outlets.log:
        parts.outlets.log.start()
    tasks = {
        asyncio.create_task(enter_notes(parts)),
        asyncio.create_task(seal_periodically(parts.database, Key.of(parts.settings.audit_sealing_key))),
        asyncio.create_task(fold_periodically(parts.database)),
        asyncio.create_task(follow_clock(parts.database.reader, clock.set_right)),
        asyncio.create_task(tidy_periodically(parts.attempts)),
        asyncio.create_task(purge_periodically(Reader(parts.database.writes))),
        asyncio.create_task(purge_changes_periodically(Reader(parts.database.writes))),
        asyncio.create_task(parts.change_feed.poll_always()),
        asyncio.create_task(parts.change_feed.watch_always()),
        asyncio.create_task(parts.proven_backup.look_periodically(parts.database.reader)),
    }
    if after := parts.settings.no_show_after:
        key = Key.of(parts.settings.audit_sealing_key)
        tasks.add(asyncio.create_task(mark_periodically(NoShows(parts.database, key, after))))
    if parts.settings.has_metrics:
        tasks.add(asyncio.create_task(gauges_of(parts).keep_up_to_date()))
    if parts.near:
        tasks.add(asyncio.create_task(parts.near.watch_always()))
    try:
        async with parts.store:
            yield
    finally:
        await cancel(tasks)
        parts.passwords.close()
        parts.printer.close()
        parts.calendar_writer.close()
        if parts.near:
            await parts.near.replica.close()
        await parts.database.close()
        if parts.outlets.log:
            parts.outlets.log.stop()


def gauges_of(parts: Parts) -> Gauges:
    asked = parts.database, parts.store, parts.admission, parts.passwords
    sources = Sources(*asked, parts.observer, parts.outlets.log, parts.proven_backup)
    return Gauges(parts.outlets.registry, sources)


async def enter_notes(parts: Parts) -> None:
    """Enter in the trail what downtime sheets left beside them."""
    settings = parts.settings
    if settings.downtime_folder:
        keys = [Key.of(key) for key in settings.audit_keys]
        await enter_notes_at_start(parts.database, Path(settings.downtime_folder), keys)


async def cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel until all are done: before Python 3.12, a cancellation may be lost where an awaited answer
    arrives at the same moment."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=1)


def from_environment() -> Litestar:
    """The application of a worker process, whose settings are in its environment."""
    try:
        settings = Settings.read()
    except SettingsError as error:  # since the parent read them: they may be in files
        logging.getLogger("medisecure.start").error("%s", error)
        raise SystemExit(1) from error
    log = configure_logging(settings.log_format or LogFormat.of(None))
    app = create_app(settings, outlets=Outlets(PROCESS_REGISTRY, log))
    trace_if_wanted(app, settings.trusted_proxies, os.environ)
    freeze_garbage_collector()
    return app
