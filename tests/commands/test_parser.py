"""The arguments of `medisecure`."""

import re
import subprocess
import sys

import pytest

from api.commands.parser import COMMANDS, build_parser
from tests.support.command import Refusal, medisecure

pytestmark = pytest.mark.slow


def test_help_lists_every_command() -> None:
    shown = medisecure("--help")
    assert shown.returncode == 0
    assert re.findall(r"^    (\S+)", shown.stdout, re.MULTILINE) == [command.name for command in COMMANDS]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["dev", "--port", "65536"], "argument --port: invalid port_number value: '65536'"),
        (["serve", "--workers", "0"], "argument --workers: invalid positive value: '0'"),
        (["verify-audit", "--max-age", "-1"], "argument --max-age: invalid seconds value: '-1'"),
        (["verify-audit", "--max-age", "inf"], "argument --max-age: invalid seconds value: 'inf'"),
        (["downtime-sheet", "--days", "0"], "argument --days: invalid day_count value: '0'"),
        (["downtime-sheet", "--days", "32"], "argument --days: invalid day_count value: '32'"),
    ],
)
def test_a_number_out_of_its_bounds_is_no_argument(
    refusal: Refusal, arguments: list[str], problem: str
) -> None:
    assert refusal(*arguments).endswith(problem)


def test_a_number_of_seconds_may_have_decimals() -> None:
    assert build_parser().parse_args(["verify-audit", "--max-age", "0.5"]).max_age == 0.5


def test_python_m_api_is_the_same_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "api", "--help"], capture_output=True, text=True, timeout=120, check=True
    )
    assert shown.stdout.startswith("usage: medisecure ")
