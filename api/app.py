"""create_app: all wiring, and nothing else."""

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware

from api.accounts import SessionService
from api.appointments import AppointmentController
from api.audit import AuditController
from api.auth import AuthController, RegistrationPolicy
from api.clinic import ClinicController
from api.contract import ContractController
from api.dashboard import DashboardController
from api.doctors import DoctorController
from api.health import HealthController
from api.http.auditing import note_refusal
from api.http.cors import Edge, OriginCheck, Origins
from api.http.errors import handle
from api.http.fields import MAX_BODY
from api.http.operation import check_request
from api.http.proxies import Proxies
from api.http.reauthorization import ReauthorizationMiddleware, caller_to_recheck, stop_rechecking
from api.http.requests import StrictRequest
from api.http.services import Services
from api.links import LinkController
from api.patients import PatientController
from api.records import RecordController
from api.sessions import SessionController
from api.settings import Settings
from api.users import UserController
from persistence.audit import Journal
from persistence.audit_chain import Key, keep_sealing
from persistence.closing import Closing
from persistence.postgres.counters import keep_folding
from persistence.postgres.database import Database, Reader, Transaction
from persistence.sessions import Sessions
from security.admission import Admission
from security.authentication import session_auth
from security.counters import CounterStore
from security.guards import signed_in
from security.login_attempts import LoginAttempts
from security.passwords import Passwords
from security.rate_limit import rate_limit
from security.tokens import TokenIssuer

CONTROLLERS = (
    AuthController,
    UserController,
    PatientController,
    LinkController,
    DoctorController,
    AppointmentController,
    RecordController,
    DashboardController,
    ClinicController,
    AuditController,
    SessionController,
    HealthController,
    ContractController,
)


def create_app(settings: Settings, *, is_local: bool = False) -> Litestar:
    """`is_local`: only developers reach it, whose pages may come from any port of http://localhost."""
    origins = Origins(settings.cors_origins, any_local_port=is_local)
    database = Database(settings.database_url)
    store = CounterStore.connect(settings.redis_url)
    passwords = Passwords(refuse_common=settings.refuse_common_passwords)
    issuer = TokenIssuer(
        settings.secret_key, settings.algorithm, settings.access_lifetime, settings.secret_key_previous
    )
    sessions = Sessions(database.reader, settings.idle_lifetime)
    admission = Admission(
        store,
        sessions.find,
        limit=settings.rate_limit_per_minute,
        tombstone=int(settings.access_lifetime.total_seconds()),
    )
    attempts = LoginAttempts(
        store,
        settings.login_attempts,
        settings.login_window_seconds,
        settings.login_failures_per_address,
    )
    session_service = SessionService(issuer, admission, settings.session_lifetime, settings.idle_lifetime)
    registration_policy = RegistrationPolicy(frozenset(settings.auto_approve_roles))

    services = Services(store, sessions, passwords, settings.clinic, Journal(Reader(database.journal)))

    async def provide_transaction(request: StrictRequest) -> AsyncGenerator[Transaction, None]:
        closing = Closing(sessions, caller_to_recheck(request))
        async with database.transaction(closing) as transaction:
            yield transaction
        if closing.has_asked:
            stop_rechecking(request)

    @asynccontextmanager
    async def connections(app: Litestar) -> AsyncIterator[None]:
        upkeep = {
            asyncio.create_task(keep_sealing(database, Key.of(settings.key_of_audit))),
            asyncio.create_task(keep_folding(database)),
        }
        try:
            async with store:
                yield
        finally:
            while upkeep:  # before Python 3.12, a cancellation that meets an answer just then may be lost
                for task in upkeep:
                    task.cancel()
                _, upkeep = await asyncio.wait(upkeep, timeout=1)
            passwords.close()
            await database.close()

    app = Litestar(
        CONTROLLERS,
        request_class=StrictRequest,
        guards=[signed_in],
        middleware=[
            DefineMiddleware(OriginCheck, origins=origins),
            session_auth(issuer, admission),
            rate_limit(settings.rate_limit_per_minute).middleware,
            DefineMiddleware(ReauthorizationMiddleware),
        ],
        before_request=check_request,  # type: ignore[arg-type]  # of a StrictRequest, the request_class
        dependencies={
            "reader": Provide(lambda: database.reader, sync_to_thread=False, use_cache=True),
            "passwords": Provide(lambda: passwords, sync_to_thread=False, use_cache=True),
            "attempts": Provide(lambda: attempts, sync_to_thread=False, use_cache=True),
            "session_service": Provide(lambda: session_service, sync_to_thread=False, use_cache=True),
            "registration_policy": Provide(lambda: registration_policy, sync_to_thread=False, use_cache=True),
            "clinic": Provide(lambda: settings.clinic, sync_to_thread=False, use_cache=True),
            "security_contact": Provide(
                lambda: settings.security_contact, sync_to_thread=False, use_cache=True
            ),
            "transaction": Provide(provide_transaction),
        },
        exception_handlers={HTTPException: handle, Exception: handle},
        stores={"rate_limit": store},
        after_exception=[note_refusal],
        state=State({"services": services}),
        lifespan=[connections],
        request_max_body_size=MAX_BODY,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    app.asgi_handler = Edge(app.asgi_handler, origins, Proxies(settings.trusted_proxies))
    return app


def from_environment() -> Litestar:
    """The application of a worker process, which knows nothing but its environment."""
    app = create_app(Settings.read())
    keep_for_good()
    return app


def keep_for_good() -> None:
    """Hide what is there from the garbage collector. It stays as long as the process, and to walk over all of
    it takes a tenth of a second, in which nobody is answered."""
    gc.collect()
    gc.freeze()
