"""Keys of PostgreSQL's advisory locks, which a transaction holds until its end."""


class Shared(int):
    """A key that many may hold together, who wait for one who holds it alone."""


def taking_of(key: int) -> str:
    """SQL that waits for the lock."""
    return f"pg_advisory_xact_lock{'_shared' if isinstance(key, Shared) else ''}({key:d})"
