"""Tokens as the service signs them, and as it does not."""

from typing import Any

import jwt

from tests.support.service import KEY

Claims = dict[str, Any]


def claims(token: str) -> Claims:
    return dict(jwt.decode(token, KEY, algorithms=["HS256"]))


def signed(payload: Claims, key: str = KEY, algorithm: str = "HS256") -> str:
    return jwt.encode(payload, key, algorithm)
