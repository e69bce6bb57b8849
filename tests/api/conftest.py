"""What the tests of resources share."""

from collections.abc import Iterator

import pytest

from tests.support.service import Backend, Service


@pytest.fixture(scope="module")
def second_instance(backend: Backend, service: Service) -> Iterator[Service]:
    """Another instance beside `service`, on the same PostgreSQL and Redis."""
    with Service(backend, backend.settings()) as running:
        yield running
