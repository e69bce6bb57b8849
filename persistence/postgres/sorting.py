"""In which order a list may be asked for: the values of `sort` in openapi.yaml, a hyphen for descending."""

from collections.abc import Mapping
from enum import StrEnum

from persistence.postgres.declared import AnyColumn


class PatientSort(StrEnum):
    NAME = "name"
    NAME_DESCENDING = "-name"
    CREATED = "created_at"
    CREATED_DESCENDING = "-created_at"


class DoctorSort(StrEnum):
    NAME = "name"
    NAME_DESCENDING = "-name"


class AppointmentSort(StrEnum):
    DATE = "date"
    DATE_DESCENDING = "-date"
    CREATED = "created_at"
    CREATED_DESCENDING = "-created_at"


class RecordSort(StrEnum):
    DATE = "date"
    DATE_DESCENDING = "-date"


def order_by(sort: StrEnum, key: AnyColumn, columns: Mapping[str, AnyColumn]) -> tuple[AnyColumn, AnyColumn]:
    """By the column with this name among `columns`, then by `key`, both the same way: an index may be read
    from either end."""
    column = columns[sort.removeprefix("-")]
    return (column.desc(), key.desc()) if sort.startswith("-") else (column, key)
