"""The two cookies of a session, as an answer sets them and as a browser holds them."""

from typing import Any

import jwt

from tests.support.client import Browser
from tests.support.service import KEY

JWT = r"[\w-]+\.[\w-]+\.[\w-]+"
ACCESS_COOKIE = f"access_token={JWT}; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age=900"
REFRESH_COOKIE = f"refresh_token={JWT}; HttpOnly; Secure; SameSite=Strict; Path=/api/auth/refresh; Max-Age="


def cookies_set(response: Any) -> list[str]:
    return list(response.headers.get_list("set-cookie"))


def claims(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_exp": False}))


def session_of(browser: Browser) -> str:
    return str(claims(browser.cookies["access_token"])["sid"])
