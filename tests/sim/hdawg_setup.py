"""A simulated HDAWG for tests: directly, or under the vendor's and our drivers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zhinst.core import compile_seqc

from instruments.hdawg import HDAWG
from sequences.program import AwgProgram
from sim.hdawg import HdawgTiming, SimulatedDataServer, SimulatedHdawg

SERIAL = "dev8001"


@cache
def compiled(source: str) -> bytes:
    """The ELF file of a SeqC program."""
    elf, info = compile_seqc(source, "HDAWG8", "", 0, samplerate=2.4e9)
    assert not info["messages"], info["messages"]
    return bytes(elf)


def running(
    source: str,
    timing: HdawgTiming | None = None,
    table: Sequence[dict[str, Any]] = (),
    settings: Iterable[tuple[str, Any]] = (),
    skips_loops: bool = True,
) -> SimulatedHdawg:
    """An instrument whose core 0 runs a program from sample 0 on."""
    device = SimulatedHdawg(SERIAL, timing=timing, skips_loops=skips_loops)
    base = f"/{SERIAL}/awgs/0/"
    items: list[tuple[str, Any]] = [
        (f"/{SERIAL}/dios/0/mode", "awg_sequencer_commands"),
        (f"{base}elf/data", compiled(source)),
        (f"{base}commandtable/data", table_text(table)),
        *((f"/{SERIAL}/{path}", value) for path, value in settings),
        (f"{base}single", 1),
        (f"{base}enable", 1),
    ]
    for path, value in items:
        device.nodes.write(path, value)
    assert device.nodes.read(f"{base}enable") == 1
    return device


def table_text(entries: Sequence[dict[str, Any]]) -> str:
    """A command table as it is uploaded."""
    return json.dumps({"header": {"version": "1.2"}, "table": list(entries)})


def ramp(n_samples: int, seed: int) -> NDArray[np.float64]:
    """A waveform no other seed has, shape (n_samples, 2)."""
    return np.random.default_rng(seed).uniform(-1, 1, (n_samples, 2))


def small_program(lengths: Sequence[int] = (32, 48)) -> AwgProgram:
    """A program that plays the table entry on the DIO lines at every rising edge of line 31.

    Entry k plays waveform k, of the k-th length; waveform 0 has markers.
    """
    assignments = []
    for index, length in enumerate(lengths):
        wave = f"placeholder({length}{', true, true' if index == 0 else ''})"
        assignments.append(f"assignWaveIndex(1, {wave}, 2, {wave}, {index});")
    source = "\n".join(assignments) + (
        "\nwhile (true) { waitDIOTrigger(); executeTableEntry(getDIOTriggered() & 0xff);"
        " setTrigger(1); setTrigger(0); }"
    )
    return AwgProgram(
        source=source,
        waveforms=tuple(ramp(length, seed) for seed, length in enumerate(lengths)),
        command_table={
            "header": {"version": "1.2"},
            "table": [
                {"index": index, "waveform": {"index": index}} for index in range(len(lengths))
            ],
        },
        markers={0: np.arange(lengths[0], dtype=np.uint8) % 16},
    )


def open_instrument(
    directory: Path, name: str = "awg", timing: HdawgTiming | None = None
) -> tuple[HDAWG, SimulatedHdawg]:
    """Our driver on a simulated instrument."""
    device = SimulatedHdawg(SERIAL, timing=timing)
    server = SimulatedDataServer([device])
    return HDAWG(name, SERIAL, connection=server, lock_directory=directory), device
