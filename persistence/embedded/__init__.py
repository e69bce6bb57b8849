"""A real PostgreSQL and a real Valkey from wheels, for `medisecure dev` and the tests."""

from persistence.embedded.processes import EmbeddedError
from persistence.embedded.servers import EmbeddedServers, discard, start

__all__ = ["EmbeddedError", "EmbeddedServers", "discard", "start"]
