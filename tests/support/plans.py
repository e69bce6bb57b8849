"""How PostgreSQL carries out the statements of a query module: `Planner` is a source for its functions."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import asyncpg

from persistence.postgres.database import Source
from persistence.postgres.statements import Record, Statement, T

TRIES = 6  # after five times PostgreSQL may take a plan that suits all values, if it is no dearer
Node = dict[str, Any]
numbers = itertools.count()


class Plan(NamedTuple):
    statement: str
    nodes: list[Node]

    @property
    def pages(self) -> int:
        """How many of the server's pages it looked at."""
        top = self.nodes[0]
        return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])

    @property
    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def read_whole(self) -> set[str]:
        """The tables."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    def __str__(self) -> str:
        lines = [
            f"{node['Node Type']} {node.get('Index Name') or node.get('Relation Name') or ''}"
            f" rows {node['Actual Rows'] * node['Actual Loops']:.0f}"
            for node in self.nodes
        ]
        return "\n".join([self.statement, f"{self.pages} pages", *lines])


def literal(value: Any) -> str:
    """As `EXECUTE` takes it."""
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        items = (
            f'"{item}"' if str(item).startswith("{") else str(item) for item in value
        )  # an array as text
        value = "{" + ",".join(items) + "}"
    return "'" + str(value).replace("'", "''") + "'"


def below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from below(child)


class Planner(Source):
    """Runs each statement as a pool's connection does that has run it before, and keeps the plans."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.plans: list[Plan] = []  # TRIES of each statement

    async def records(self, statement: Statement[T], parameters: T) -> Sequence[Record]:
        ready = statement.compiled(())
        name = f"statement_{next(numbers)}"
        execute = f"EXECUTE {name}"
        if values := ready.arguments(parameters):
            execute += f"({', '.join(map(literal, values))})"
        await self.connection.execute(f"PREPARE {name} AS {ready.sql}")
        await self.connection.execute(execute)  # now it has read of the tables and functions what it keeps
        for _ in range(TRIES):
            explained = await self.connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}")
            self.plans.append(Plan(ready.sql, list(below(json.loads(explained)[0]["Plan"]))))
        records: Sequence[Record] = await self.connection.fetch(execute)
        return records
