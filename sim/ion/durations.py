"""How long instructions take at instrument level: the table of the behavioural device.

`measure_durations` runs instructions on a simulated node and counts ticks; the defaults of
`IonTiming` came from here.
"""

from __future__ import annotations

from typing import Final

from calibration.instrument_bench import Line, TickClock
from drivers.ion_setup import IonSettings
from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction
from sequences.ion import IonOperation
from sim.ion.build import SimulatedIonNode
from sim.ion.node import TICK_NS
from sim.ion_timing import IonTiming

INSTRUCTIONS: Final[dict[IonOperation, PhysicalInstruction]] = {
    IonOperation.INITIALISE: instructions.ini(),
    IonOperation.X_PI: instructions.sqg(Axis.X, 16),
    IonOperation.Y_PI: instructions.sqg(Axis.Y, 16),
    IonOperation.X_HALF: instructions.sqg(Axis.X, 8),
    IonOperation.Y_HALF: instructions.sqg(Axis.Y, 8),
    IonOperation.X_MINUS_HALF: instructions.sqg(Axis.X, 24),
    IonOperation.MEASURE: instructions.msr(),
}
"""What the wire calls each operation."""


def measure_ticks(node: SimulatedIonNode) -> dict[IonOperation, int]:
    """Ticks from the frame of every instruction to the one with its outcome."""
    clock = TickClock()
    line = Line(node.device, clock)
    for _ in range(3):
        line.exchange()
        clock.tick += 1
    ticks = {}
    for operation, instruction in INSTRUCTIONS.items():
        sent = clock.tick
        line.run(instruction)
        ticks[operation] = clock.tick - 1 - sent
    return ticks


def measure_durations(settings: IonSettings | None = None) -> IonTiming:
    """The durations of a node at instrument level.

    Args:
        settings: what the node is set up with; None for the default ones.
    """
    settings = settings or IonSettings()
    with SimulatedIonNode(settings=settings) as node:
        ticks = measure_ticks(node)
    return IonTiming(
        tick_ns=TICK_NS,
        initialise_ticks=ticks[IonOperation.INITIALISE],
        pi_ticks=max(ticks[IonOperation.X_PI], ticks[IonOperation.Y_PI]),
        half_pi_ticks=max(
            ticks[operation]
            for operation in (
                IonOperation.X_HALF,
                IonOperation.Y_HALF,
                IonOperation.X_MINUS_HALF,
            )
        ),
        measure_ticks=ticks[IonOperation.MEASURE],
        detection_us=settings.sequences.detection_us,
        threshold=settings.threshold,
    )
