"""Masters with scripts, wires in memory, and two ways to run devices between them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from qnodeos.qdevice.endpoint import FrameMaster, Response
from qnodeos.qdevice.frames import TICK_MASK, TICK_PATTERN
from qnodeos.qdevice.instructions import PhysicalInstruction
from sim.link import EntanglementLink, LinkParameters
from sim.noise import NVNoise
from sim.nv_device import BehaviouralNVDevice
from sim.nv_timing import NVTiming
from sim.realtime.laboratory import IDLE_FRAME, RealTimeDevice, RealTimeLaboratory

TICK_NS = 10_000
EPOCH_NS = 5_000_000_123
NAMES = ("client", "server")
MAX_TICKS = 20_000

Step = tuple[int, PhysicalInstruction]
"""Ticks to wait after the answer before, and an instruction."""


def bare(tick: int, frame: int) -> int:
    """A response without its tick."""
    return frame ^ TICK_PATTERN[tick & TICK_MASK]


@dataclass
class MemoryPort:
    """A wire: commands that the laboratory has not taken, and responses by their tick."""

    commands: deque[tuple[int, int]] = field(default_factory=deque)
    responses: list[tuple[int, int]] = field(default_factory=list)

    def receive(self) -> tuple[int, int] | None:
        return self.commands.popleft() if self.commands else None

    def respond(self, from_tick: int, frame: int) -> None:
        assert not self.responses or from_tick > self.responses[-1][0]
        self.responses.append((from_tick, frame))

    def at(self, tick: int) -> int:
        """What is on the wire to the QNPU at a tick."""
        from_tick, frame = max(entry for entry in self.responses if entry[0] <= tick)
        return bare(from_tick, frame) ^ TICK_PATTERN[tick & TICK_MASK]


class Clock:
    """A clock that stands where it was put."""

    def __init__(self) -> None:
        self.now_ns = EPOCH_NS

    def __call__(self) -> int:
        return self.now_ns

    def go_to(self, tick: int, further_ns: int = 0) -> None:
        self.now_ns = EPOCH_NS + tick * TICK_NS + further_ns


@dataclass
class ScriptedMaster:
    """A QNPU that sends the instructions of a script, whatever is answered."""

    script: Sequence[Step]
    session: int = 0
    outcomes: list[tuple[int, Response]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._master = FrameMaster(self.session)
        self._left = deque(self.script)
        self._earliest = 3

    @property
    def is_done(self) -> bool:
        return self._master.idle and not self._left

    def outgoing(self, tick: int) -> int:
        is_free = self._master.idle and not self._master.has_news
        if self._left and is_free and tick >= self._earliest + self._left[0][0]:
            self._master.submit(self._left.popleft()[1])
        return self._master.outgoing()

    def incoming(self, tick: int, frame: int) -> None:
        response = self._master.incoming(frame)
        if response is not None:
            self.outcomes.append((tick, response))
            self._earliest = tick + 1


def two_devices(
    seed: int, link: LinkParameters, noise: NVNoise | None = None
) -> tuple[dict[str, BehaviouralNVDevice], EntanglementLink]:
    """Client and server; the same seed gives the same physics."""
    between = EntanglementLink(link, random.Random(f"{seed}/link"), TICK_NS)
    devices = {
        name: BehaviouralNVDevice(
            NVTiming(), noise or NVNoise(), between, random.Random(f"{seed}/{name}"), name
        )
        for name in NAMES
    }
    return devices, between


@dataclass
class Record:
    """What travelled: per node the commands and the responses that said something new."""

    commands: dict[str, list[tuple[int, int]]]
    responses: dict[str, list[tuple[int, int]]]
    outcomes: dict[str, list[tuple[int, Response]]]


def run_directly(
    devices: Mapping[str, RealTimeDevice], scripts: Mapping[str, Sequence[Step]]
) -> Record:
    """Exchange a frame each way at every tick, as on a real wire."""
    masters = {name: ScriptedMaster(script) for name, script in scripts.items()}
    record = Record({n: [] for n in devices}, {n: [] for n in devices}, {})
    on_wire = dict.fromkeys(devices, IDLE_FRAME)
    said = dict.fromkeys(devices, -1)
    for name, device in devices.items():
        first = device.exchange(0, IDLE_FRAME)
        record.responses[name].append((0, first))
        said[name] = bare(0, first)
    rest = 0
    for tick in range(1, MAX_TICKS):
        for name, master in masters.items():
            frame = master.outgoing(tick)
            if frame != on_wire[name]:
                on_wire[name] = frame
                record.commands[name].append((tick, frame))
            response = devices[name].exchange(tick, frame)
            if bare(tick, response) != said[name]:
                said[name] = bare(tick, response)
                record.responses[name].append((tick, response))
            master.incoming(tick, response)
        rest += all(master.is_done for master in masters.values())
        if rest > 2:
            break
    record.outcomes = {name: master.outcomes for name, master in masters.items()}
    return record


def laboratory(
    devices: Mapping[str, RealTimeDevice], grace_ticks: int
) -> tuple[RealTimeLaboratory, dict[str, MemoryPort], Clock]:
    """A laboratory on wires in memory, and its clock."""
    clock = Clock()
    ports = {name: MemoryPort() for name in devices}
    served = RealTimeLaboratory(
        {name: (device, ports[name]) for name, device in devices.items()},
        EPOCH_NS,
        clock,
        grace_ticks,
    )
    return served, ports, clock


def run_in_real_time(
    devices: Mapping[str, RealTimeDevice],
    scripts: Mapping[str, Sequence[Step]],
    masters: Callable[[str, Sequence[Step]], ScriptedMaster] = lambda _, s: ScriptedMaster(s),
) -> Record:
    """Masters and a laboratory that is in time; turns at every tick."""
    served, ports, clock = laboratory(devices, 0)
    acting = {name: masters(name, script) for name, script in scripts.items()}
    record = Record({n: [] for n in devices}, {n: [] for n in devices}, {})
    on_wire = dict.fromkeys(devices, IDLE_FRAME)
    rest = 0
    for tick in range(1, MAX_TICKS):
        clock.go_to(tick)
        for name, master in acting.items():
            frame = master.outgoing(tick)
            if frame != on_wire[name]:
                on_wire[name] = frame
                record.commands[name].append((tick, frame))
                ports[name].commands.append((tick, frame))
            master.incoming(tick, ports[name].at(tick))
        served.turn()
        rest += all(master.is_done for master in acting.values())
        if rest > 2:
            break
    record.outcomes = {name: master.outcomes for name, master in acting.items()}
    record.responses = {name: port.responses for name, port in ports.items()}
    return record


def run_late(
    devices: Mapping[str, RealTimeDevice],
    commands: Mapping[str, Sequence[tuple[int, int]]],
    grace: int,
    lag: Callable[[], int],
) -> dict[str, list[tuple[int, int]]]:
    """Serve commands that come after their ticks; the responses.

    Args:
        devices: by node.
        commands: with their ticks, by node.
        grace: of the laboratory, in ticks.
        lag: by how many ticks the next one is late; none overtakes another of its node.
    """
    served, ports, clock = laboratory(devices, grace)
    arrivals: list[tuple[int, str, tuple[int, int]]] = []
    for name, sent in commands.items():
        earliest = 0
        for tick, frame in sent:
            earliest = max(earliest, tick + lag())
            arrivals.append((earliest, name, (tick, frame)))
    arrivals.sort(key=lambda arrival: arrival[0])
    wake: int | None = None
    while arrivals or wake is not None:
        now = min([arrival[0] for arrival in arrivals[:1]] + ([] if wake is None else [wake]))
        clock.go_to(now)
        while arrivals and arrivals[0][0] <= now:
            _, name, command = arrivals.pop(0)
            ports[name].commands.append(command)
        wake = served.turn()
        assert wake is None or wake > now
    assert all(not node.moved_commands for node in served.statistics.values())
    return {name: port.responses for name, port in ports.items()}
