"""The per-user limit: Litestar's middleware with security/admission.py's atomic answer.

The stock one reads, decides and writes in three steps: of 100 allowed it let 122 to 161 through.
"""

from typing import cast

from litestar.exceptions import TooManyRequestsException
from litestar.middleware.rate_limit import RateLimitConfig, RateLimitMiddleware
from litestar.types import Message, Receive, Scope, Send

from security.admission import Admitted, Count


class AdmissionRateLimit(RateLimitMiddleware):
    """Turns what the authentication middleware was told into 429 and into headers on every answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        admitted = cast("Admitted | None", scope.get("auth"))
        if admitted is None or admitted.count is None:
            await self.app(scope, receive, send)
            return
        headers = rate_limit_headers(admitted.count)
        if admitted.count.exceeded:
            raise TooManyRequestsException(
                "Too many requests", headers={**headers, "Retry-After": str(admitted.count.reset)}
            )
        # A session that ends while its request waits is a 401 like any other, and says nothing of a count.
        secured = not scope["route_handler"].opt.get("anonymous")
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and not (secured and message["status"] == 401):
                message["headers"] = [*message["headers"], *encoded]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def rate_limit_headers(count: Count) -> dict[str, str]:
    """The headers of draft-ietf-httpapi-ratelimit-headers-06."""
    return {
        "RateLimit-Policy": f"{count.limit}; w={count.window}",
        "RateLimit-Limit": str(count.limit),
        "RateLimit-Remaining": str(count.remaining),
        "RateLimit-Reset": str(count.reset),
    }


def rate_limit(limit: int) -> RateLimitConfig:
    return RateLimitConfig(rate_limit=("minute", limit), middleware_class=AdmissionRateLimit)
