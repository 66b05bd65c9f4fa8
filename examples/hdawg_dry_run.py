"""Load the NV sequencer program into a simulated HDAWG and look at the pulses it plays.

The table, the SeqC program, the vendor's compiler and the driver are the real ones; only the
connection is simulated. With an instrument, ``host="..."`` takes its place; that has not been
tried. Needs the extra `lab`, which `make demo` and `make test` install. Run it with
`.venv/bin/python examples/hdawg_dry_run.py`.
"""

from __future__ import annotations

from itertools import pairwise

from instruments.hdawg import HDAWG
from sequences.nv_seqc import TOGGLE_LINE, dio_word, nv_program
from sequences.waveform_table import TableSettings, build_table, entry_of_word
from sim.hdawg import SimulatedDataServer, SimulatedHdawg

X180 = 16 << 4 | 2
"""The physical instruction for a rotation by pi about X, as it travels in a frame."""

SPACING = 24_102
"""Samples between two decoupling pulses: 10.04 us at 2.4 GSa/s."""

COPIES = 16
"""Each decoupling pulse exists in 16 copies; copy s is delayed by s samples."""


def main() -> list[int]:
    """Print what was played; returns the distances between decoupling pulses, in samples."""
    table = build_table(TableSettings(spacing_samples=SPACING, alphas=()))
    device = SimulatedHdawg("dev8001")
    awg = HDAWG("awg", "dev8001", connection=SimulatedDataServer([device]))
    try:
        awg.load(0, nv_program(table))
        awg.dio.mode("awg_sequencer_commands")
        awg.cores[0].strobe_line(TOGGLE_LINE)
        awg.cores[0].strobe_slope("both_edges")
        awg.start(0)
        fraction = awg.cores[0].wave_memory_fraction()
        print(f"loaded: {fraction:.1%} of the waveform cache, checked by the vendor's compiler")

        device.run_until(20_000)
        device.write_dio(device.now, dio_word(table, entry_of_word(X180), toggle=1))
        device.run_until(device.now + 40 * SPACING)
        plays = [p for p in device.cores[0].player.timeline.plays() if p.entry is not None]
    finally:
        awg.close()

    gate, *decoupling = plays
    print(f"gate: table entry {gate.entry} at sample {gate.start_sample}")
    starts = [play.start_sample + (play.entry or 0) % COPIES for play in decoupling]
    distances = [later - earlier for earlier, later in pairwise(starts)]
    print(f"then {len(decoupling)} decoupling pulses, {min(distances)} to {max(distances)} samples"
          " apart")  # fmt: skip
    return distances


if __name__ == "__main__":
    main()
