"""Brings the search and sort keys of older releases up to date, while the service runs."""

import sys
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import BindParameter, Connection, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.postgres.folding import FORMAT_MARK, keys_of
from persistence.postgres.latin import latin_trigrams

BATCH_ROWS = 2000  # writers of these rows wait for a fraction of a second
OF_OLDER_FORMAT = f"NOT starts_with(search_text, U&'\\{ord(FORMAT_MARK):04X}')"
# Or without trigrams: those went with migration 0010 where it was undone.
STALE = f"({OF_OLDER_FORMAT} OR trigrams IS NULL)"
SEARCHED = {"patients": ("charts", STALE), "users": ("accounts", STALE)}
# A chart that is parted again is searched by the keys that it was merged with.
TABLES = {**SEARCHED, "merged_patients": ("merged charts", OF_OLDER_FORMAT)}


def refold(connection: Connection, tables: Mapping[str, tuple[str, str]] = TABLES) -> None:
    """Rewrite the keys of every row that an older release has written, in transactions of BATCH_ROWS rows.
    Rows that such a release writes meanwhile are rewritten as well. What is done stays done if this is
    stopped. The connection must be in autocommit mode. `tables`: what to call the rows of each, and which of
    them are stale."""
    for table, (noun, is_stale) in tables.items():
        left = text(f"SELECT count(*) FROM {table} WHERE {is_stale}")  # noqa: S608  # of TABLES
        while stale := connection.execute(left).scalar_one():
            done = 0
            for renewed in rewrite_batches(connection, table, is_stale):
                done += renewed
                print_progress(f"{noun}: {done:,} of {stale:,}", done >= stale)


def rewrite_batches(connection: Connection, table: str, is_stale: str) -> Iterator[int]:
    """One pass over the stale rows of a table; yields how many rows of each batch were rewritten."""
    following = text(
        f"SELECT id, name, email, phone, search_text FROM {table} "  # noqa: S608  # of TABLES
        f"WHERE id > :after AND {is_stale} ORDER BY id LIMIT {BATCH_ROWS}"
    )
    # Rows are locked in the order of their ids, as in every transaction. A row that was changed after it was
    # read keeps the change; the next pass rewrites it.
    renewing = text(
        f"""
        WITH made AS MATERIALIZED (
            SELECT * FROM unnest(:ids, :were, :sorts, :searches) AS made(id, was, sorts, searches)
        ),
        held AS MATERIALIZED (
            SELECT made.* FROM made JOIN {table} USING (id) WHERE search_text = was
            ORDER BY id FOR NO KEY UPDATE OF {table}
        )
        UPDATE {table} SET sort_name = sorts, search_text = searches
        FROM held WHERE {table}.id = held.id AND search_text = was
        """  # noqa: S608  # of TABLES
    ).bindparams(bindparam("ids", type_=ARRAY(Uuid)), *map(text_array, ("were", "sorts", "searches")))
    after = "00000000-0000-0000-0000-000000000000"
    while rows := connection.execute(following, {"after": after}).all():
        keys = [keys_of(row.name, row.email, row.phone) for row in rows]
        renewed = connection.execute(
            renewing,
            {
                "ids": [row.id for row in rows],
                "were": [row.search_text for row in rows],
                "sorts": [key["sort_name"] for key in keys],
                "searches": [key["search_text"] for key in keys],
            },
        )
        after = rows[-1].id
        yield renewed.rowcount


def spell_names(connection: Connection) -> None:
    """Store how the charts' names that are not in Latin letters are written in these, as `refold` does its
    work. A row that an older release has renamed keeps the spelling of the name before."""
    following = text(
        "SELECT id, name FROM patients WHERE octet_length(sort_name) > char_length(sort_name) "
        "AND latin_trigrams IS NULL AND id > :after ORDER BY id LIMIT :most"
    )
    spelling = text(
        """
        WITH made AS MATERIALIZED (
            SELECT * FROM unnest(:ids, :names, :spelled) AS made(id, name, spelled)
        ),
        held AS MATERIALIZED (
            SELECT made.* FROM made JOIN patients USING (id, name) ORDER BY id FOR NO KEY UPDATE OF patients
        )
        UPDATE patients SET latin_trigrams = CAST(spelled AS integer[]) FROM held WHERE patients.id = held.id
        """
    ).bindparams(bindparam("ids", type_=ARRAY(Uuid)), *map(text_array, ("names", "spelled")))
    after = "00000000-0000-0000-0000-000000000000"
    while rows := connection.execute(following, {"after": after, "most": BATCH_ROWS}).all():
        spelled = [",".join(map(str, latin_trigrams(row.name) or [])) for row in rows]
        values = {"ids": [row.id for row in rows], "names": [row.name for row in rows]}
        connection.execute(spelling, {**values, "spelled": [f"{{{numbers}}}" for numbers in spelled]})
        after = rows[-1].id


def text_array(name: str) -> BindParameter[Sequence[str]]:
    return bindparam(name, type_=ARRAY(Text))


def print_progress(progress: str, is_last: bool) -> None:
    if sys.stderr.isatty():
        print(f"\r{progress}", end="\n" if is_last else "", file=sys.stderr, flush=True)
