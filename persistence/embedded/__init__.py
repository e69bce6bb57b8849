"""A real PostgreSQL and a real Valkey from wheels, for `medisecure dev` and the tests.

Only the server programs of the wheels are used: their Python wrappers make parent folders readable to others,
and leave servers running. Everything is written into the data folder, with one exception. PostgreSQL refuses
to run as root, so root's database is under /var/lib/medisecure and belongs to an ordinary user; `servers` in
the data folder is a link to it.

A signal does not run Python's `finally` blocks by itself. A program that calls `start` handles SIGINT and
SIGTERM, and calls `stop` when its own work is done. If it dies before, the servers end on their own.
"""

from persistence.embedded.processes import EmbeddedError
from persistence.embedded.servers import EmbeddedServers, discard, start

__all__ = ["EmbeddedError", "EmbeddedServers", "discard", "start"]
