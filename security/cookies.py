"""The two cookies, byte for byte as the requirement writes them (section 1)."""

from collections.abc import Iterable

from litestar.datastructures import Cookie

ACCESS = "access_token"
REFRESH = "refresh_token"
REFRESH_PATH = "/api/auth/refresh"


class ExactCookie(Cookie):
    """As the requirement writes it; Litestar has the attributes in another order, and `SameSite=strict`."""

    def to_encoded_header(self) -> tuple[bytes, bytes]:
        value = (
            f"{self.key}={self.value or ''}; HttpOnly; Secure; SameSite=Strict; "
            f"Path={self.path}; Max-Age={self.max_age}"
        )
        return b"set-cookie", value.encode("ascii")


def access_cookie(token: str, max_age: int) -> Cookie:
    """`max_age` in seconds."""
    return ExactCookie(key=ACCESS, value=token, path="/", max_age=max_age)


def refresh_cookie(token: str, max_age: int) -> Cookie:
    return ExactCookie(key=REFRESH, value=token, path=REFRESH_PATH, max_age=max_age)


def cleared_cookies() -> list[Cookie]:
    return [access_cookie("", 0), refresh_cookie("", 0)]


def read_cookie(headers: Iterable[tuple[bytes, bytes]], name: str) -> str | None:
    """The value of the cookie `name`. None if it is absent, or sent twice: then another site of the domain
    may have set one of them (RFC 6265, 8.6)."""
    found = read_cookies(headers, name)
    return found[0] if len(found) == 1 else None


def read_cookies(headers: Iterable[tuple[bytes, bytes]], name: str) -> list[str]:
    """Every value that is sent as `name`, in all Cookie fields together."""
    prefix = name.encode() + b"="
    return [
        part[len(prefix) :].decode("latin-1")
        for key, value in headers
        if key == b"cookie"
        for pair in value.split(b";")
        if (part := pair.strip()).startswith(prefix)
    ]
