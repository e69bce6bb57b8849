"""Whether this Redis can do for us what requests need: asked before the service is let loose on it, and by
/health/ready."""

import re
from uuid import UUID, uuid4

from redis.exceptions import AuthenticationError, ClusterDownError, RedisError, ResponseError

from security.counters import TOMBSTONE, CounterStore, session_key

OLDEST = (6, 2)
LASTING = (AuthenticationError, ResponseError)
NOBODY = UUID(int=0)
REQUESTS = [session_key(NOBODY), "requests:user:nobody", "requests:address:nobody"]
ATTEMPTS = ["login:attempts:nobody", "login:failures:nobody"]
# What a server says that is full, or at odds with its disk, its replicas or its cluster for a while.
PASSING = re.compile(r"^(MISCONF|NOREPLICAS|BUSY)|used memory > 'maxmemory'")
KEYS = "on the keys login:*, requests:* and session:*"
# By what the server says: some put their word into a sentence of the script's own.
ADVICE = {
    r"read only replica": "name the primary in REDIS_URL",
    r"ACL failure": f"let the user run all that scripts run, {KEYS}",
    r"[Nn]o permissions": f"let the user run EVAL, EVALSHA and SCRIPT, {KEYS}",
    r"unknown command": "name a Redis in REDIS_URL that has EVAL, EVALSHA and SCRIPT",
    r"same slot|^[0-9]+ \S+:[0-9]+$|[Cc]luster": "name a Redis in REDIS_URL that is no cluster",
    r"username-password|authenticated|[Pp]assword|AUTH": "give REDIS_URL the user name and the password",
    r"^DB index": "name a database in REDIS_URL that it has",
}


async def try_out(store: CounterStore) -> None:
    """Run every script and command that requests run, on keys of nobody, which expire within a minute. Raises
    what security.availability.UNAVAILABLE lists, or BusyError."""
    attempt = uuid4().hex
    await store.settle(REQUESTS, 1000, TOMBSTONE, 1000)
    await store.admit(REQUESTS, 1000)
    await store.count(REQUESTS[-1], 1000)
    await store.take_attempt(ATTEMPTS, 5, 5, 60, attempt, 60)
    await store.return_attempt(ATTEMPTS, attempt)
    await store.keep_attempt(ATTEMPTS, attempt, 60)
    for key in ATTEMPTS:
        await store.forget(key)
    await store.bury_session(NOBODY, 1)


def objection(error: Exception) -> str | None:
    """Why no waiting helps against `error`, and what to do; None where it may."""
    said = error.__cause__ if isinstance(error.__cause__, RedisError) else error  # refused while connecting
    reason = str(said).partition("\n")[0]
    if not isinstance(said, LASTING) or isinstance(said, ClusterDownError) or PASSING.search(reason):
        return None
    advice = next((advice for words, advice in ADVICE.items() if re.search(words, reason)), "name another")
    return f"Redis cannot do what the service needs: {reason.rstrip('.')}; {advice}"


async def doubts(store: CounterStore) -> tuple[str | None, str | None]:
    """An objection to what the server says about itself, and a warning; neither where it does not say."""
    try:
        info = await store.info()
    except ResponseError:
        return None, None
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < OLDEST:
        return f"Redis {version} is too old; the service needs {'.'.join(map(str, OLDEST))} or newer", None
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        return None, f"Redis may drop counters when it is full ({policy}); set maxmemory-policy to noeviction"
    return None, None
