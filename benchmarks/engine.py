"""The tick engine: the C extension against the pure-Python engine, in the same run.

The first figure is an idle tick: the frames of both ends of the wire, made, exchanged and taken,
without waiting for any tick to come. The second is an instruction: handed over, executed by a
device inside the engine, and its event taken, event-paced, at ticks so short that only the work
counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.measure import GC_OFF, Effort, Outcome, Work, compare
from qnodeos.engine import LoopbackLink, TickEngine, open_engine
from qnodeos.engine.layout import MIN_TICK_NS
from qnodeos.engine.opening import native_module
from qnodeos.qdevice.endpoint import FrameMaster, FrameSlave
from qnodeos.qdevice.instructions import ini

TICKS: Final = 20_000
NATIVE_TICKS: Final = 1_000_000
INSTRUCTIONS: Final = 3_000
NOT_BUILT: Final = "the C extension was not built: the pure-Python engine stands for both"


def _python_ticks(ticks: int) -> Work:
    master, slave = FrameMaster(), FrameSlave()

    def run() -> None:
        for tick in range(ticks):
            response = slave.outgoing(tick)
            slave.incoming(master.outgoing())
            master.incoming(response)

    return Work("pure Python", "tick", ticks, lambda: run)


def _native_ticks(ticks: int) -> Work:
    from qnodeos.engine.native import NativeEngine

    engine = open_engine(LoopbackLink(), mode="event-paced", native=True)
    assert isinstance(engine, NativeEngine)
    return Work("C", "tick", ticks, lambda: lambda: engine.run_ticks(ticks))


def _run_instructions(engine: TickEngine, instructions: int) -> Callable[[], None]:
    instruction = ini(0)

    def run() -> None:
        submit, poll = engine.submit, engine.poll
        for _ in range(instructions):
            submit(instruction)
            while poll() is None:
                pass

    return run


def _instructions(name: str, instructions: int, *, native: bool) -> tuple[Work, TickEngine]:
    engine = open_engine(LoopbackLink(tick_ns=MIN_TICK_NS), mode="event-paced", native=native)
    engine.start()
    run = _run_instructions(engine, instructions)
    return Work(name, "instruction", instructions, lambda: run), engine


def run(effort: Effort) -> Outcome:
    """Measure."""
    is_native = native_module() is not None
    python = _python_ticks(effort.of(TICKS))
    native = _native_ticks(effort.of(NATIVE_TICKS)) if is_native else python
    instructions = effort.of(INSTRUCTIONS)
    reference, reference_engine = _instructions("pure Python", instructions, native=False)
    ours, our_engine = _instructions("C", instructions, native=is_native)
    try:
        figures = [
            compare(native, python, effort).speed("idle tick of the engine"),
            compare(ours, reference, effort).speed("instruction through the engine"),
        ]
    finally:
        reference_engine.close()
        our_engine.close()
    return Outcome(figures, GC_OFF, notes=() if is_native else (NOT_BUILT,))
