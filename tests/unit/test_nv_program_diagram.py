"""The diagram of the ADwin program's states is what its source does.

The source is walked once for every state: a branch counts unless its condition says that it is
another state's. Nothing is executed, so a transition needs no scenario to be found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from instruments.nv_controller import STATES

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "instruments" / "adbasic" / "qdevice_nv.bas"
PAGE = ROOT / "docs" / "instruments.md"

if not PAGE.is_file():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)

NAMES = {name.upper(): name for name in STATES}
IDLE_ONLY = ("was_idle = 1", "job = NOP")
"""Conditions that hold in IDLE and in no other state."""


def statements(text: str) -> list[str]:
    return [
        line.split("'")[0].strip()
        for line in text.splitlines()
        if line.split("'")[0].strip() and not line.startswith("#")
    ]


SOURCE = PROGRAM.read_text("latin-1")
SUBS = {
    name: statements(body)
    for name, body in re.findall(r"^SUB (\w+)\(.*?\)\n(.*?)^ENDSUB", SOURCE, re.M | re.S)
}
EVENT = statements(SOURCE[SOURCE.index("\nEVENT:") + len("\nEVENT:") : SOURCE.index("\nFINISH:")])


def holds(condition: str, state: str) -> bool | None:
    """Whether a condition is true in a state; None if that depends on other things."""
    about = re.fullmatch(r"\(state = (\w+)\)", condition)
    if about:
        return about[1] == state
    if any(text in condition for text in IDLE_ONLY) and state != "IDLE":
        return False
    return None


def assigned(lines: list[str], state: str) -> Iterator[str]:
    """The states that some lines may lead to from a state."""
    # Of every open block: whether it is entered, and whether its other branch may be.
    blocks: list[tuple[bool, bool]] = []
    selects: list[bool] = []
    for line in lines:
        if line.startswith("SELECTCASE"):
            selects.append(line == "SELECTCASE state")
            blocks.append((True, True))
        elif line == "ENDSELECT":
            selects.pop()
            blocks.pop()
        elif line.startswith("CASE"):
            names = set(re.findall(r"\w+", line.removeprefix("CASE")))
            blocks[-1] = (not selects[-1] or state in names, True)
        elif line == "ENDIF":
            blocks.pop()
        elif line == "ELSE":
            entered, other = blocks.pop()
            blocks.append((other, entered))
        else:
            condition, then, rest = line.rpartition(" THEN")
            true = holds(condition.removeprefix("IF "), state)
            if then and not rest:
                blocks.append((true is not False, true is not True))
            elif all(entered for entered, _ in blocks) and true is not False:
                yield from reached(rest.strip(), state)


def reached(statement: str, state: str) -> Iterator[str]:
    change = re.fullmatch(r"state = (\w+)", statement)
    if change:
        yield change[1]
    call = re.match(r"(\w+)\(", statement)
    if call and call[1] in SUBS:
        yield from assigned(SUBS[call[1]], state)


def transitions() -> set[tuple[str, str]]:
    return {
        (NAMES[state], NAMES[following])
        for state in NAMES
        for following in assigned(EVENT, state)
        if following != state
    }


def drawn() -> set[tuple[str, str]]:
    [diagram] = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    return set(re.findall(r"^ +(\S+) --> (\w+)", diagram, re.M))


def test_the_diagram_has_the_transitions_of_the_source():
    found = transitions()
    assert len(found) > 20
    # A state may also begin anew without being assigned, as PLAYING does between gates.
    assert {pair for pair in drawn() if pair[0] != pair[1]} == found | {("[*]", "idle")}


def test_the_only_state_drawn_with_itself_is_the_one_that_commands_again():
    assert {first for first, second in drawn() if first == second} == {"playing"}


def test_every_assignment_is_in_a_transition():
    """None has been overlooked: they all lead from somewhere."""
    written = {name for name in re.findall(r"\bstate = (\w+)\s*$", SOURCE, re.M) if name in NAMES}
    assert {NAMES[name] for name in written} == {following for _, following in transitions()}


def test_the_table_numbers_the_states_as_the_driver_does():
    section = PAGE.read_text("utf-8").split("## The program of the ADwin\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", section, re.M)
    assert [(int(number), name) for number, name in rows] == list(enumerate(STATES))
