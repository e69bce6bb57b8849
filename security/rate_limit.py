"""The per-user limit: Litestar's middleware with security/admission.py's atomic answer.

The stock one reads, decides and writes in three steps: of 100 allowed it let 122 to 161 through.
"""

from functools import cache
from typing import cast

from litestar.exceptions import TooManyRequestsException
from litestar.middleware.rate_limit import RateLimitConfig, RateLimitMiddleware
from litestar.types import Message, Receive, Scope, Send

from security.admission import Admitted, Count
from security.policy import AccessPolicy


class AdmissionRateLimit(RateLimitMiddleware):
    """Turns the count of the authentication middleware into 429 and into headers on every answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        admitted = cast("Admitted | None", scope.get("auth"))
        if admitted is None or admitted.count is None:
            await self.app(scope, receive, send)
            return
        if admitted.count.is_exceeded:
            headers = rate_limit_headers(admitted.count)
            headers["Retry-After"] = str(admitted.count.reset)
            raise TooManyRequestsException("Too many requests", headers=headers)
        # A session that ends while its request waits is a 401 like any other, and says nothing of a count.
        secured = not AccessPolicy.of(scope["route_handler"]).authentication.counts_anonymous
        encoded = encoded_headers(admitted.count)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and not (secured and message["status"] == 401):
                message["headers"] = [*message["headers"], *encoded]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def rate_limit_headers(count: Count) -> dict[str, str]:
    """The headers of draft-ietf-httpapi-ratelimit-headers-06."""
    return {name.decode(): value.decode() for name, value in encoded_headers(count)}


def encoded_headers(count: Count) -> tuple[tuple[bytes, bytes], ...]:
    return (
        *policy_headers(count.limit, count.window),
        (b"RateLimit-Remaining", b"%d" % count.remaining),
        (b"RateLimit-Reset", b"%d" % count.reset),
    )


@cache
def policy_headers(limit: int, window: int) -> tuple[tuple[bytes, bytes], ...]:
    return (b"RateLimit-Policy", b"%d; w=%d" % (limit, window)), (b"RateLimit-Limit", b"%d" % limit)


def rate_limit(limit: int) -> RateLimitConfig:
    return RateLimitConfig(rate_limit=("minute", limit), middleware_class=AdmissionRateLimit)
