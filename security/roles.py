"""Who asks: the four roles and the caller of a request."""

from enum import StrEnum
from uuid import UUID

from msgspec import Struct


class Role(StrEnum):
    ADMIN = "admin"
    DOCTOR = "doctor"
    STAFF = "staff"
    PATIENT = "patient"


class Caller(Struct, frozen=True):
    """A signed-in person, as their session in PostgreSQL says; nothing here comes from a token's claims."""

    id: UUID
    email: str
    role: Role
    session_id: UUID
