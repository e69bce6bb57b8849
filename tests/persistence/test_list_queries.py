"""The queries of lists that are narrowed and sorted, which are made when they are first asked for, fit their
types."""

import itertools
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TypeVar

import pytest

from persistence import appointment_lists, doctors, patients, records
from persistence.postgres.sorting import AppointmentSort, DoctorSort, PatientSort, RecordSort
from security.roles import Role

pytestmark = pytest.mark.slow

S = TypeVar("S", bound=StrEnum)


def asked_for(filters: Iterable[str], sorts: type[S]) -> Iterator[tuple[frozenset[str], S]]:
    """Each filter, any two, and each order."""
    first = next(iter(sorts))
    for some in itertools.chain.from_iterable(itertools.combinations(filters, n) for n in range(3)):
        yield frozenset(some), first
    yield from ((frozenset(), sort) for sort in sorts)


@pytest.mark.parametrize("role", [Role.STAFF, Role.DOCTOR, Role.PATIENT])
def test_every_filter_and_order_fits_its_types(role: Role) -> None:
    for given, sort in asked_for(appointment_lists.CONDITIONS, AppointmentSort):
        appointment_lists.listing(role, given, sort)
    for written, order in asked_for(records.CONDITIONS, RecordSort):
        records.listing(role, written, order)
    for narrowed, by in asked_for(patients.CONDITIONS, PatientSort):
        patients.listing(role, narrowed, by)
        patients.searching(role, narrowed, by)
    for narrowed, way in asked_for(doctors.CONDITIONS, DoctorSort):
        doctors.listing(narrowed, way)
        doctors.searching(narrowed, way)
