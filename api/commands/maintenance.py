"""What operators run on the database: `medisecure migrate`, `verify-audit` and `check-counters`."""

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence

from api.commands.checks import ask_database, find_server_problem
from api.commands.environment import CommandError, require_database_url, run_transaction
from api.settings import read_setting
from persistence import audit_verification, grants
from persistence.audit_chain import Key
from persistence.audit_verification import Report
from persistence.postgres import counters
from persistence.postgres.database import Database

DAMAGED, UNSEALED, UNCHECKED = 1, 2, 3  # exit statuses of verify-audit


def migrate(arguments: argparse.Namespace) -> None:
    from persistence.migrations.commands import upgrade  # not above: Alembic takes long to load

    url = require_database_url()
    problem = asyncio.run(ask_database(url, find_server_problem))
    if problem:
        raise CommandError(problem)
    upgrade(url)
    asyncio.run(count_uncounted(url))
    if arguments.grant_to:
        run_transaction(url, lambda transaction: grants.grant_to(transaction, arguments.grant_to))


async def count_uncounted(url: str) -> None:
    """Count what the database does not know yet, as after the migration that brought the counters."""
    async with Database(url, command_timeout=None) as database:
        await counters.fold_all(database)


def verify_audit(arguments: argparse.Namespace) -> None:
    keys = audit_keys(os.environ)
    report = asyncio.run(verify_seals(require_database_url(), keys, arguments.head))
    print_report(report)
    if report.damage:
        raise CommandError("the audit trail is damaged", DAMAGED)
    if report.unsealed and report.oldest_unsealed_seconds > arguments.max_age:
        raise CommandError(
            f"no damage, but events older than {arguments.max_age:g} s are unsealed: is `medisecure serve` "
            "running, does its log say why it cannot seal, does a transaction stay open (pg_stat_activity)?",
            UNSEALED,
        )
    if report.not_given or not keys:
        raise CommandError(
            "no damage was found, but a key was not given: set AUDIT_KEY, SECRET_KEY or SECRET_KEY_PREVIOUS "
            "to that under which the trail was sealed; seals under a key that was never yours are forged",
            UNCHECKED,
        )


def audit_keys(environment: Mapping[str, str]) -> list[Key]:
    """The keys under which seals may have been made: AUDIT_KEY, SECRET_KEY and SECRET_KEY_PREVIOUS."""
    names = ("AUDIT_KEY", "SECRET_KEY", "SECRET_KEY_PREVIOUS")
    return [Key.of(value) for name in names if (value := read_setting(name, environment))]


async def verify_seals(url: str, keys: list[Key], noted_head: str | None) -> Report:
    async with Database(url, command_timeout=None) as database:
        return await audit_verification.verify(database.reader, keys, noted_head)


def print_report(report: Report) -> None:
    for line in report.damage:
        print(f"DAMAGED: {line}")
    for line in report.not_given:
        print(f"NOT CHECKED: {line}")
    print(f"{report.sealed} events in {report.seals} seals, head {report.head}")
    print(f"{report.vouched_rows} rows of history and versions are as their events say")
    age = f", the oldest {report.oldest_unsealed_seconds:.0f} s old" if report.unsealed else ""
    print(f"{report.unsealed} events in the unsealed tail{age}")


def check_counters(arguments: argparse.Namespace) -> None:
    """Exit status 1 where a counter and the rows differ."""
    differing = 0
    for row in asyncio.run(compare_counters(require_database_url(), repair=arguments.repair)):
        name = f"{row.list} ({row.kind})" if row.kind else row.list
        money = f", {row.amount} for {row.sum} in all" if row.amount or row.sum else ""
        if not row.is_counted:
            print(f"{name}: not counted yet, {row.rows} rows")
            continue
        differs = (row.n, row.amount) != (row.rows, row.sum)
        differing += differs
        print(f"{'DIFFERENT: ' if differs else ''}{name}: counter {row.n}, rows {row.rows}{money}")
    if differing:
        raise CommandError(
            "counters are wrong, as after rows were written with triggers off or data alone was restored; "
            "run `medisecure check-counters --repair`, for which the service need not stop"
        )


async def compare_counters(url: str, *, repair: bool) -> Sequence[counters.Count]:
    """The counters beside the rows; with `repair`, after all rows were counted again."""
    async with Database(url, command_timeout=None) as database:
        if repair:
            await counters.repair(database)
        return await counters.check(database.reader)
