"""The arguments of `medisecure`."""

import re

from api.commands.parser import COMMANDS
from tests.support.command import medisecure


def test_help_lists_every_command() -> None:
    shown = medisecure("--help")
    assert shown.returncode == 0
    assert re.findall(r"^    (\S+)", shown.stdout, re.MULTILINE) == [command.name for command in COMMANDS]
