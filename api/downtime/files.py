"""Files that only their owner may read."""

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex


def write_privately(file: Path, content: bytes) -> None:
    """With mode 0600, whatever was there before, and whole or not at all."""
    unfinished = file.with_name(f".{file.name}.{token_hex(8)}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        unfinished.replace(file)
    except BaseException:
        with suppress(FileNotFoundError):
            unfinished.unlink()
        raise
