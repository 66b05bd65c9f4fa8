"""A tick engine and, where it has one, the device at the other end of its channel."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from qnodeos.engine import (
    DevicePort,
    EngineEvent,
    LoopbackLink,
    ShmLink,
    TickEngine,
    open_engine,
)
from qnodeos.engine.opening import native_module
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome

TICK_NS: Final = 10_000
CAPABILITIES: Final = Capabilities("spin", (0,), (1,), frozenset(Opcode), TICK_NS)
PATIENCE_S: Final = 60.0
"""When a test gives up: far above what even a loaded machine needs."""

needs_native = pytest.mark.skipif(
    native_module() is None, reason="the C extension was not built: no compiler"
)
ENGINES: Final = [
    pytest.param({"native": False}, id="python"),
    pytest.param({"native": True, "mode": "event-paced"}, id="native", marks=needs_native),
    pytest.param(
        # An ordinary thread: the suite has no claim to a core.
        {"native": True, "mode": "spinning", "tick_priority": 0},
        id="spinning",
        marks=needs_native,
    ),
]


@dataclass
class Device:
    """A device at a channel, which executes instructions when the test says so.

    Attributes:
        answer: called with each new instruction; None to leave it unanswered.
        received: instructions executed.
    """

    port: DevicePort
    answer: Callable[[Device, int, PhysicalInstruction], None] | None
    slave: FrameSlave = field(default_factory=FrameSlave)
    received: list[PhysicalInstruction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.say(0)

    def say(self, tick: int) -> None:
        self.port.respond(tick, self.slave.outgoing(tick))

    def restart(self) -> None:
        self.slave = FrameSlave()
        self.say(self.port.now_tick())

    def complete(self, tick: int, outcome: Outcome, herald: BellState | None = None) -> None:
        self.slave.complete(outcome, herald)
        self.say(tick)

    def work(self) -> None:
        self.port.acknowledge_doorbell()
        while (command := self.port.receive()) is not None:
            tick, frame = command
            instruction = self.slave.incoming(frame)
            if self.slave.has_news:
                self.say(tick + 1)
            if instruction is not None:
                self.received.append(instruction)
                if self.answer is not None:
                    self.answer(self, tick, instruction)


def succeed(device: Device, tick: int, instruction: PhysicalInstruction) -> None:
    del instruction
    device.complete(tick + 1, Outcome.SUCCESS_ZERO)


@dataclass
class Bench:
    engine: TickEngine
    device: Device | None

    def until(self, done: Callable[[], Any]) -> Any:
        """Let both ends work until this is true; what it was."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := done()):
            assert time.monotonic() < deadline, f"nothing came; {self.engine.statistics()}"
            descriptors = list(self.engine.filenos())
            if self.device is not None:
                self.device.work()
                descriptors.append(self.device.port.fileno())
            select.select(descriptors, [], [], 0.05)
        return found

    def until_received(self, device: Device) -> None:
        """Let both ends work until the device has an instruction, and no event has come."""

        def received() -> bool:
            assert self.engine.poll() is None
            return bool(device.received)

        self.until(received)

    def event(self) -> EngineEvent:
        event: EngineEvent = self.until(self.engine.poll)
        return event

    def run(self, instruction: PhysicalInstruction) -> EngineEvent:
        self.engine.submit(instruction)
        return self.event()


def make_port(path: Path, **changes: Any) -> DevicePort:
    return DevicePort.create(
        path,
        **{
            "name": "spin",
            "tick_ns": TICK_NS,
            "epoch_ns": time.monotonic_ns(),
            "capabilities": CAPABILITIES,
            **changes,
        },
    )


@contextmanager
def shm_bench(
    folder: Path,
    options: dict[str, Any],
    answer: Callable[[Device, int, PhysicalInstruction], None] | None = succeed,
) -> Iterator[tuple[Bench, Device]]:
    """An engine and a device at the two ends of a channel, started."""
    path = folder / "spin.channel"
    with make_port(path) as port:
        device = Device(port, answer)
        # A test that waits for a core is not a device that is silent.
        engine = open_engine(ShmLink(path), **{"silence_limit_ticks": 1 << 40, **options})
        try:
            engine.start()
            yield Bench(engine, device), device
        finally:
            engine.close()


@contextmanager
def loopback_bench(options: dict[str, Any], **link: Any) -> Iterator[Bench]:
    """An engine with the device inside it, started."""
    engine = open_engine(LoopbackLink(**link), **options)
    try:
        engine.start()
        yield Bench(engine, None)
    finally:
        engine.close()
