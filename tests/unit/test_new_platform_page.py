"""docs/new-platform.md and the ion's part of docs/hardware.md are what the code says."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from enum import IntEnum
from io import StringIO
from pathlib import Path

import pytest

from sequences.ion import (
    TRIGGER_CODE_BITS,
    TRIGGER_STROBE,
    DdsProfile,
    IonOperation,
    TtlLine,
)
from sim.ion.node import TICK_NS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "new-platform.md"
HARDWARE = ROOT / "docs" / "hardware.md"

if not PAGE.is_file():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)

SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
PRINTED = {
    "ION_CAPABILITIES": "links=0",
    "TrappedIonDriver": "['SQG', 'SQG']\ntrapped ion has no gate 't'",
    "check_qdevice": "rules kept; not for this device: pre-measurement gates",
    "PLATFORMS": "nv NVDriver nv\nion TrappedIonDriver vanilla\n",
    "build_ion_node": "[0, 10, ",
}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_python_of_the_page_runs(snippet):
    (expected,) = (
        text for name, text in PRINTED.items() if re.search(rf"import .*{name}", snippet)
    )
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(snippet, str(PAGE), "exec"), {"__name__": "page"})
    assert expected in printed.getvalue()


def test_every_file_of_the_page_is_there():
    named = re.findall(r"`((?:qnodeos|sim|drivers|tests|examples|sequences)/[\w/.-]+)`",
                       PAGE.read_text("utf-8"))  # fmt: skip
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).exists(), name


def rows_below(text: str) -> dict[int, str]:
    """Numbers and names of the table below a piece of text."""
    page = HARDWARE.read_text("utf-8")
    assert page.count(text) == 1
    table = re.search(r"(?:^\|.*\|\n)+", page[page.index(text) :], re.M)
    assert table is not None
    found: dict[int, str] = {}
    for line in table[0].splitlines()[2:]:
        numbers, names = (cell.strip() for cell in line.split("|")[1:3])
        found |= {
            int(number): name
            for number, name in zip(numbers.split(", "), names.split(", "), strict=True)
        }
    return found


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("Outputs of the sequencer, active high", TtlLine),
        ("The codes of the operations", IonOperation),
        ("The profiles of the DDS", DdsProfile),
    ],
)
def test_the_lines_of_the_ion_node(text: str, members: type[IntEnum]):
    assert rows_below(text) == {member.value: member.name for member in members}


def test_the_triggers_and_the_pace_of_the_ion_node():
    page = HARDWARE.read_text("utf-8")
    inputs = ", ".join(str(number) for number in range(TRIGGER_CODE_BITS))
    assert f"| {inputs} | code of the operation" in page
    assert f"| {TRIGGER_STROBE} | strobe" in page
    assert f"tick_ns: {TICK_NS}`" in page
