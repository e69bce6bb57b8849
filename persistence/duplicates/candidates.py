"""Charts that may be of the person who is looked for: a bounded number, which indexes find."""

import asyncio
from collections.abc import Iterable
from datetime import date
from typing import TypedDict

from sqlalchemy import text

from persistence.duplicates.likeness import Likeness, most_alike
from persistence.duplicates.sought import Sought, dates_like, orders_of, parts_alone, probes_of, whole_names
from persistence.patients import SummaryRow
from persistence.postgres.database import Source
from persistence.postgres.statements import Query

MAX_DUPLICATES = 10


class Asked(TypedDict):
    """Sets of trigrams are arrays of integers as text: `whole`, those of the whole name in each spelling;
    `parts`, those of each part of it. `names`: as charts are sorted. `dates`: like that of the birth."""

    probes: list[str]
    weights: list[int]
    parts: list[str]
    whole: list[str]
    names: list[str]
    born: date | None
    dates: list[date]


# However common a name or a birthday is, no part of this yields more than its limit. What is left out there
# is what fewest parts have found: who has the name and the birthday, or the e-mail, is among the first.
CANDIDATES_SQL = text(
    """
    WITH probes AS MATERIALIZED (
        SELECT CAST(probe.trigrams AS integer[]) AS trigrams, probe.weight
        FROM unnest(CAST(:probes AS text[]), CAST(:weights AS integer[])) AS probe(trigrams, weight)
    ), wholes AS MATERIALIZED (
        SELECT CAST(whole AS integer[]) AS trigrams FROM unnest(CAST(:whole AS text[])) AS whole
    ), parts AS MATERIALIZED (
        SELECT CAST(part AS integer[]) AS trigrams FROM unnest(CAST(:parts AS text[])) AS part
    ), born_like AS MATERIALIZED (
        SELECT id, trigrams, latin_trigrams FROM patients
        WHERE date_of_birth = ANY (CAST(:dates AS date[])) LIMIT 500
    ), found AS (
        SELECT one.id, probes.weight FROM probes CROSS JOIN LATERAL (
            SELECT id FROM patients WHERE patients.trigrams @> probes.trigrams LIMIT 100
        ) AS one
        UNION ALL
        SELECT one.id, probes.weight FROM probes CROSS JOIN LATERAL (
            SELECT id FROM patients WHERE patients.latin_trigrams @> probes.trigrams LIMIT 100
        ) AS one
        UNION ALL
        SELECT one.id, 100 FROM wholes CROSS JOIN LATERAL (
            SELECT id FROM patients WHERE date_of_birth = ANY (CAST(:dates AS date[]))
            AND (patients.trigrams @> wholes.trigrams OR patients.latin_trigrams @> wholes.trigrams) LIMIT 100
        ) AS one
        UNION ALL
        (SELECT id, 100 FROM patients WHERE sort_name = ANY (CAST(:names AS text[])) LIMIT 100)
        UNION ALL
        (SELECT id, 20 FROM patients WHERE date_of_birth = CAST(:born AS date) LIMIT 200)
        UNION ALL
        SELECT id, 20 FROM born_like WHERE EXISTS (
            SELECT FROM parts WHERE born_like.trigrams @> parts.trigrams
            OR born_like.latin_trigrams @> parts.trigrams
        )
    ), best AS MATERIALIZED (
        SELECT id FROM found GROUP BY id ORDER BY sum(weight) DESC, id LIMIT 200
    )
    SELECT patients.id, name, email, phone, date_of_birth, gender, address, created_at
    FROM best JOIN patients ON patients.id = best.id
    """
)
CANDIDATES = Query(SummaryRow, Asked, CANDIDATES_SQL)


async def find(source: Source, sought: Sought) -> list[Likeness]:
    """The charts that are most like it, the best first. What takes long, libraries that are loaded at their
    first use and some milliseconds of comparing, is done beside the event loop."""
    asked = await asyncio.to_thread(keys_of, sought)
    rows = await source.rows(CANDIDATES, asked)
    return await asyncio.to_thread(most_alike, sought, rows, MAX_DUPLICATES)


def keys_of(sought: Sought) -> Asked:
    probes = probes_of(sought)
    parts = parts_alone(sought.name)
    return Asked(
        probes=[as_array(probe.trigrams) for probe in probes],
        weights=[probe.weight for probe in probes],
        parts=[as_array(part) for part in parts],
        whole=[as_array(whole) for whole in whole_names(sought.name)],
        names=orders_of(sought.name),
        born=sought.born,
        dates=sorted(dates_like(sought.born)) if sought.born else [],
    )


def as_array(trigrams: Iterable[int]) -> str:
    """As PostgreSQL reads one."""
    return "{" + ",".join(map(str, sorted(trigrams))) + "}"
