"""The simulated HDAWG: how fast it plays, and how long a program takes to load.

Against the clock: simulated time over the time it takes, free XY8 and free attempts with and
without passing over loops; what an instruction may cost; and the three seconds that table,
compilation and upload may take together.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measure import GC_FROZEN, Effort, Figure, Outcome, Timing, gc_frozen

if TYPE_CHECKING:
    from instruments.hdawg import HDAWG
    from sim.hdawg import SimulatedHdawg

PLAYED_MS: Final = 100
INSTRUCTIONS: Final = 200
INSTRUCTION_LIMIT_NS: Final = 150_000
LOAD_LIMIT_S: Final = 3.0
SAMPLES_PER_MS: Final = 2_400_000
SAMPLES_PER_INSTRUCTION: Final = SAMPLES_PER_MS // 2
"""Time to decouple after each: some six blocks."""

_SERIAL: Final = "dev8001"


def run(effort: Effort) -> Outcome:
    """Measure."""
    from sequences.waveform_table import FIRST_ATTEMPT, FIRST_ROTATION

    figures = []
    for what, entry in (("XY8", FIRST_ROTATION), ("attempts", FIRST_ATTEMPT)):
        for skips_loops in (True, False):
            with _loaded(skips_loops) as (_, device):
                _send(device, entry, 1)
                length_ms = effort.of(PLAYED_MS)
                times_ns = [_play_ns(device, length_ms) / length_ms for _ in range(effort.rounds)]
            how = "" if skips_loops else ", every iteration executed"
            figures.append(
                _figure(
                    f"{what} on the simulated HDAWG{how}",
                    "simulated HDAWG",
                    Timing("real time", "ms played", 1e6),
                    times_ns,
                )
            )
    with _loaded() as (instrument, device):
        limit = Timing("limit", "rotation", INSTRUCTION_LIMIT_NS)
        times_ns = [_instruction_ns(device, effort) for _ in range(effort.rounds)]
        figures.append(_figure("rotations under XY8", "simulated HDAWG", limit, times_ns, True))
        instrument.stop(0)
        limit = Timing("limit", "load", LOAD_LIMIT_S * 1e9)
        times_ns = [_load_ns(instrument) for _ in range(effort.rounds)]
        figures.append(
            _figure("load an AWG program", "table, compiler, upload", limit, times_ns, True)
        )
    return Outcome(figures, GC_FROZEN)


def _figure(
    name: str, ours: str, reference: Timing, times_ns: list[float], is_limit: bool = False
) -> Figure:
    return Figure(
        name,
        "times as fast as",
        Timing(ours, reference.unit, sorted(times_ns)[len(times_ns) // 2]),
        reference,
        tuple(reference.ns / time_ns for time_ns in times_ns),
        (1.0, float("inf")) if is_limit else None,
    )


@contextmanager
def _loaded(skips_loops: bool = True) -> Iterator[tuple[HDAWG, SimulatedHdawg]]:
    """An instrument with the program of an NV node, running, and its simulated twin."""
    # Late: the vendor's libraries are an extra of this project.
    from instruments.hdawg import HDAWG
    from sequences.nv_seqc import TOGGLE_LINE
    from sim.hdawg import SimulatedDataServer, SimulatedHdawg

    device = SimulatedHdawg(_SERIAL, skips_loops=skips_loops)
    with tempfile.TemporaryDirectory() as locks:
        instrument = HDAWG(
            "benchmark_awg",
            _SERIAL,
            connection=SimulatedDataServer([device]),
            lock_directory=Path(locks),
        )
        try:
            _load_ns(instrument)
            instrument.dio.mode("awg_sequencer_commands")
            instrument.cores[0].strobe_line(TOGGLE_LINE)
            instrument.cores[0].strobe_slope("both_edges")
            instrument.start(0)
            device.run_until(10_000)
            yield instrument, device
        finally:
            instrument.close()


def _load_ns(instrument: HDAWG) -> float:
    from sequences.nv_seqc import nv_program
    from sequences.waveform_table import TableSettings, build_table

    start_ns = time.process_time_ns()
    instrument.load(0, nv_program(build_table(TableSettings())))
    return time.process_time_ns() - start_ns


def _send(device: SimulatedHdawg, entry: int, toggle: int) -> None:
    """Command an entry and let it play, with what follows it."""
    from sequences.nv_seqc import TOGGLE, dio_word
    from sequences.waveform_table import TableSettings, build_table

    _write(device, dio_word(build_table(TableSettings()), entry, toggle), TOGGLE)
    if len(device.cores[0].player.timeline) < 3:
        raise RuntimeError("the program plays nothing; there is nothing to measure")


def _write(device: SimulatedHdawg, word: int, toggle_line: int) -> None:
    device.write_dio(device.now, word ^ toggle_line)
    device.write_dio(device.now + 100, word)
    device.run_until(device.now + SAMPLES_PER_INSTRUCTION)


def _play_ns(device: SimulatedHdawg, length_ms: int) -> float:
    timeline = device.cores[0].player.timeline
    timeline.take(device.now)
    with gc_frozen():
        start_ns = time.process_time_ns()
        device.run_until(device.now + length_ms * SAMPLES_PER_MS)
        timeline.take(device.now)
        return max(time.process_time_ns() - start_ns, 1)


def _instruction_ns(device: SimulatedHdawg, effort: Effort) -> float:
    """Rotations about changing angles, each with the plays it causes."""
    from sequences.nv_seqc import TOGGLE, dio_word
    from sequences.waveform_table import FIRST_ROTATION, TableSettings, build_table

    table = build_table(TableSettings())
    # In pairs, so that the toggle line ends as it began.
    words = [
        dio_word(table, FIRST_ROTATION + number * 7 % 64, 1 - number % 2)
        for number in range(2 * effort.of(INSTRUCTIONS // 2))
    ]
    timeline = device.cores[0].player.timeline
    with gc_frozen():
        start_ns = time.process_time_ns()
        for word in words:
            _write(device, word, TOGGLE)
            timeline.take(device.now)
        return (time.process_time_ns() - start_ns) / len(words)
