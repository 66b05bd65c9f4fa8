"""The simulated HDAWG: how fast it decouples, and how long a program takes to load.

Both against the clock: simulated time over the time it takes, and the three seconds that
table, compilation and upload may take together.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measure import GC_FROZEN, Effort, Figure, Outcome, Timing, gc_frozen

if TYPE_CHECKING:
    from instruments.hdawg import HDAWG
    from sim.hdawg import SimulatedHdawg

DECOUPLED_MS: Final = 100
LOAD_LIMIT_S: Final = 3.0
SAMPLES_PER_MS: Final = 2_400_000

_SERIAL: Final = "dev8001"


def run(effort: Effort) -> Outcome:
    """Measure."""
    # Late: the vendor's libraries are an extra of this project.
    from instruments.hdawg import HDAWG
    from sim.hdawg import SimulatedDataServer, SimulatedHdawg

    device = SimulatedHdawg(_SERIAL)
    with tempfile.TemporaryDirectory() as locks:
        instrument = HDAWG(
            "benchmark_awg",
            _SERIAL,
            connection=SimulatedDataServer([device]),
            lock_directory=Path(locks),
        )
        try:
            load_ns = [_load_ns(instrument) for _ in range(effort.rounds)]
            sample = _start_decoupling(instrument, device)
            length_ms = effort.of(DECOUPLED_MS)
            play_ns = []
            for _ in range(effort.rounds):
                play_ns.append(_play_ns(device, sample, length_ms * SAMPLES_PER_MS) / length_ms)
                sample += length_ms * SAMPLES_PER_MS
        finally:
            instrument.close()
    return Outcome(
        [
            _figure("XY8 on the simulated HDAWG", "simulated HDAWG", "real time", play_ns, 1e6),
            _figure("load an AWG program", "table, compiler, upload", "limit", load_ns,
                    LOAD_LIMIT_S * 1e9, wanted=(1.0, float("inf"))),
        ],
        GC_FROZEN,
    )  # fmt: skip


def _figure(
    name: str,
    ours: str,
    reference: str,
    times_ns: list[float],
    reference_ns: float,
    wanted: tuple[float, float] | None = None,
) -> Figure:
    unit = "load" if wanted else "ms played"
    return Figure(
        name,
        "times as fast as",
        Timing(ours, unit, sorted(times_ns)[len(times_ns) // 2]),
        Timing(reference, unit, reference_ns),
        tuple(reference_ns / time_ns for time_ns in times_ns),
        wanted,
    )


def _load_ns(instrument: HDAWG) -> float:
    from sequences.nv_seqc import nv_program
    from sequences.waveform_table import TableSettings, build_table

    start_ns = time.process_time_ns()
    instrument.load(0, nv_program(build_table(TableSettings())))
    return time.process_time_ns() - start_ns


def _start_decoupling(instrument: HDAWG, device: SimulatedHdawg) -> int:
    """Play one rotation, and the XY8 blocks that follow it; the sample reached."""
    from sequences.nv_seqc import TOGGLE_LINE, dio_word
    from sequences.waveform_table import FIRST_ROTATION, TableSettings, build_table

    instrument.dio.mode("awg_sequencer_commands")
    instrument.cores[0].strobe_line(TOGGLE_LINE)
    instrument.cores[0].strobe_slope("both_edges")
    instrument.start(0)
    device.run_until(10_000)
    device.write_dio(10_000, dio_word(build_table(TableSettings()), FIRST_ROTATION, 1))
    device.run_until(SAMPLES_PER_MS)
    if len(device.cores[0].player.timeline) < 2:
        raise RuntimeError("the program does not decouple; nothing to measure")
    return SAMPLES_PER_MS


def _play_ns(device: SimulatedHdawg, sample: int, n_samples: int) -> float:
    device.forget_before(sample)
    with gc_frozen():
        start_ns = time.process_time_ns()
        device.run_until(sample + n_samples)
        return max(time.process_time_ns() - start_ns, 1)
