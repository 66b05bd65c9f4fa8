"""Running small ADbasic programs in tests."""

from __future__ import annotations

from pathlib import Path

from sim.adwin.hardware import InMemoryHardware
from sim.adwin.options import ProcessorModel
from sim.adwin.system import AdwinSystem
from sim.adwin.transpiler import transpile_file

PROGRAMS = Path(__file__).parents[1] / "data" / "adbasic"

HEADER = """'<ADbasic Header, Headerversion 001.001>
' Process_Number                 = {number}
' Initial_Processdelay           = {delay}
' Eventsource                    = {source}
' Priority                       = {priority}
'<Header End>
"""
HEADER_LINES = HEADER.count("\n")


def write_source(
    folder: Path,
    body: str,
    *,
    number: int = 1,
    delay: int = 300,
    source: str = "Timer",
    priority: str = "High",
    name: str = "program.bas",
) -> Path:
    """Write a source with a header; the first line of `body` is line `HEADER_LINES` + 1."""
    path = folder / name
    header = HEADER.format(number=number, delay=delay, source=source, priority=priority)
    path.write_text(header + body, "latin-1")
    return path


def system_with(
    *paths: Path,
    hardware: InMemoryHardware | None = None,
    model: ProcessorModel | None = None,
) -> AdwinSystem:
    """A system with programs loaded, none started."""
    system = AdwinSystem(hardware or InMemoryHardware(), model or ProcessorModel.t11())
    for path in paths:
        system.load(transpile_file(path, system.model))
    return system


def run_init(folder: Path, body: str, model: ProcessorModel | None = None) -> AdwinSystem:
    """Run the INIT section of a program, which is all that `body` needs to have."""
    system = system_with(write_source(folder, body), model=model)
    system.start(1)
    return system
