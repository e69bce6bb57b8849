"""Can this Redis do what requests need? Asked before the service starts on it, and by /health/ready."""

import re
from time import time_ns
from uuid import UUID

from redis.exceptions import AuthenticationError, ClusterDownError, RedisError, ResponseError

from security.counters import NOBODY, TOMBSTONE, AttemptCount, CounterStore, session_key
from security.fences import Fences
from security.scripts import SETTLE_WRITE

MIN_VERSION = (6, 2)
NO_SESSION = UUID(int=0)
REQUEST_KEYS = [session_key(NO_SESSION), "requests:user:nobody", NOBODY]
LASTING_ERRORS = (AuthenticationError, ResponseError)
# Their exceptions: a server that is full, or cannot write to its disk or its replicas for a while.
PASSING = re.compile(r"^(MISCONF|NOREPLICAS|BUSY)|used memory > 'maxmemory'")
KEY_PATTERNS = "on the keys login:*, requests:*, session:* and fence*"
# By what the server says. Some servers put that into a sentence about the script.
ADVICE = {
    r"read only replica": "name the primary in REDIS_URL",
    r"ACL failure": f"let the user run all that scripts run, {KEY_PATTERNS}",
    r"[Nn]o permissions": f"let the user run EVAL, EVALSHA and SCRIPT, {KEY_PATTERNS}",
    r"unknown command": "name a Redis in REDIS_URL that has EVAL, EVALSHA and SCRIPT",
    r"same slot|^[0-9]+ \S+:[0-9]+$|[Cc]luster": "name a Redis in REDIS_URL that is no cluster",
    r"username-password|authenticated|[Pp]assword|AUTH": "give REDIS_URL the user name and the password",
    r"^DB index": "name a database in REDIS_URL that it has",
}


async def require_working_redis(store: CounterStore, *, fenced: bool = False) -> None:
    """Run every script and command that requests run, on keys of no account, which expire within a minute.
    `fenced`: those of requests where there is a replica. Raises what security.availability.UNAVAILABLE lists,
    or BusyError."""
    passage = Fences(store).passage("nobody", writes=True, changes_access=False) if fenced else None
    await store.remember_session(REQUEST_KEYS, 1000, TOMBSTONE, 1000, passage)
    await store.look_up_session(REQUEST_KEYS, 1000, passage)
    if passage:
        await store.run_script(SETTLE_WRITE, passage.keys[:1], passage.note, 0, 1000)
    await store.count_request(REQUEST_KEYS[-1], 1000)
    await store.copy_attempts([AttemptCount("login:attempts:nobody", 1, 0, 1000, time_ns() // 1000)])
    await store.write_tombstone(NO_SESSION, 1)


def explain_lasting_error(error: Exception) -> str | None:
    """Why waiting does not help against `error`, and what to do; None if it may help."""
    answered = (
        error.__cause__ if isinstance(error.__cause__, RedisError) else error
    )  # refused while connecting
    reason = str(answered).partition("\n")[0]
    if not isinstance(answered, LASTING_ERRORS) or isinstance(answered, ClusterDownError):
        return None
    if PASSING.search(reason):
        return None
    advice = next((advice for words, advice in ADVICE.items() if re.search(words, reason)), "name another")
    return f"Redis cannot do what the service needs: {reason.rstrip('.')}; {advice}"


async def inspect_server(store: CounterStore) -> tuple[str | None, str | None]:
    """A problem and a warning, by what the server says about itself; None for both if it does not say."""
    try:
        info = await store.info()
    except ResponseError:
        return None, None
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        return f"Redis {version} is too old; the service needs {needed} or newer", None
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        return None, f"Redis may drop counters when it is full ({policy}); set maxmemory-policy to noeviction"
    return None, None
