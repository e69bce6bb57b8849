"""The history of a chart or an appointment, played again from its creation."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.support.service import Backend

State = dict[str, Any]
# Where the changes of an object of this kind are.
HISTORIES = {
    "patients": ("patient_changes", "patient_id"),
    "appointments": ("appointment_changes", "appointment_id"),
}


class Step(NamedTuple):
    """One field, changed by one request."""

    request_id: str
    field: str
    before: str | None
    after: str | None


def steps(backend: Backend, kind: str) -> dict[str, list[Step]]:
    """By object, the oldest first."""
    table, column = HISTORIES[kind]
    columns = f"{column}::text, request_id::text, field, before, after"
    found: dict[str, list[Step]] = defaultdict(list)
    for row in backend.sql(f"SELECT {columns} FROM {table} ORDER BY id"):
        object_id, *step = row
        found[object_id].append(Step(*step))
    return found


def value_after(state: State, step: Step) -> Any:
    """Of the field; of `merge`, which charts are merged into this one, or that it is merged into."""
    assert step.before != step.after, step
    if step.field == "merge":
        others: frozenset[str] = state["merge"]
        assert (step.before in others) is (step.after is None), f"{step} meets {state}"
        return others ^ ({step.before, step.after} - {None})
    assert state[step.field] == step.before, f"{step} meets {state}"
    return step.after


def replay(created: State, history: Sequence[Step]) -> list[tuple[str, State]]:
    """How the object was after each request that changed it, and which that was. Each step begins with what
    the one before it has left, and changes it."""
    states: list[tuple[str, State]] = [("", created)]
    for step in history:
        request_id, state = states[-1]
        after = {**state, step.field: value_after(state, step)}
        if request_id == step.request_id:
            states.pop()
        states.append((step.request_id, after))
    made_by = [request_id for request_id, _ in states]
    assert len(set(made_by)) == len(made_by), "what one request has changed stands together"
    return states
