"""`medisecure migrate` spells the names that an older release has stored, while the service runs."""

import asyncio

import pytest
from sqlalchemy import Connection

from persistence.migrations import refolding
from persistence.migrations.commands import create_engine, upgrade
from persistence.postgres.folding import keys_of
from persistence.postgres.latin import latin_trigrams
from tests.support.service import Backend

pytestmark = pytest.mark.slow

ADD = (
    "INSERT INTO patients (id, name, email, phone, date_of_birth, gender, address, sort_name, search_text) "
    "VALUES (gen_random_uuid(), $1, 'a@b.example', '1', '2000-01-01', 'other', 'x', $2, $3)"
)  # as releases before 0016 store it
SPELLED = "SELECT name, latin_trigrams FROM patients ORDER BY name"
NAMES = ["Ada Lovelace", "Zoë", "王伟", "Наталья", "Юрий"]


@pytest.fixture
def stored(backend: Backend) -> Backend:
    copy = backend.copy()
    for name in NAMES:
        keys = keys_of(name, "a@b.example", "1")
        copy.sql(ADD, name, keys["sort_name"], keys["search_text"])
    return copy


def spelled(backend: Backend) -> dict[str, list[int] | None]:
    return dict(map(tuple, backend.sql(SPELLED)))


def test_migrating_spells_every_name_that_is_not_in_latin_letters(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refolding, "BATCH_ROWS", 2)
    stored.sql("UPDATE patients SET sort_name = 'zoë' WHERE name = 'Zoë'")  # older folding kept the accent
    assert set(spelled(stored).values()) == {None}
    upgrade(stored.database_url)
    assert spelled(stored) == {name: latin_trigrams(name) for name in NAMES} | {"Zoë": []}


def test_a_name_that_is_changed_meanwhile_is_left_to_the_next_time(stored: Backend) -> None:
    """Its spelling would be that of another name."""

    async def spell() -> None:
        engine = create_engine(stored.database_url)
        async with engine.connect() as connection:
            committing = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await committing.run_sync(spell_while_somebody_writes)
        await engine.dispose()

    def spell_while_somebody_writes(connection: Connection) -> None:
        rename = "UPDATE patients SET name = 'Ольга' WHERE name = 'Юрий'"

        class Renaming:
            """The connection, on which somebody renames a chart between reading and writing."""

            def execute(self, statement: object, values: dict[str, object]) -> object:
                if "spelled" in values:
                    connection.exec_driver_sql(rename)
                return connection.execute(statement, values)  # type: ignore[call-overload]  # passed on

        refolding.spell_names(Renaming())  # type: ignore[arg-type]  # what it uses of one

    asyncio.run(spell())
    assert spelled(stored)["Ольга"] is None
    asyncio.run(spell())
    assert spelled(stored)["Ольга"] == latin_trigrams("Ольга")
