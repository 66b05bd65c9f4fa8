"""A bench for simulated devices: programs in virtual time, and the statistics they are held to.

A program is a generator that yields physical instructions (and gets the response) or a
number of ticks to wait.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import qutip

from qnodeos.qdevice.endpoint import FrameMaster, Response
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from sim.link import EntanglementLink, LinkParameters
from sim.noise import NVNoise
from sim.nv_device import BehaviouralNVDevice
from sim.nv_timing import NVTiming

Z_LIMIT = 4.5
"""Statistical tests fail by chance with a probability of 7e-6; the seeds are fixed anyway."""

START_TICK = 10
SIGMA = (qutip.sigmax(), qutip.sigmay(), qutip.sigmaz())
NOISELESS = NVNoise.noiseless()
WHOLE_TICKS = NVTiming(dd_block_ns=80_000, dd_lead_ns=0, herald_lag_ns=0)
"""Gates start at whole ticks: one before the outcome."""
CERTAIN = LinkParameters.perfect(success_probability=1)

Program = Generator[PhysicalInstruction | int, Response | None, None]


class Answer(NamedTuple):
    """One instruction as the QNPU saw it: ticks at which it was sent and answered."""

    instruction: PhysicalInstruction
    sent: int
    answered: int
    response: Response


class Station:
    """One device, its end of the wire, and the program it runs."""

    def __init__(self, device: BehaviouralNVDevice, program: Program) -> None:
        self.device = device
        self.master = FrameMaster()
        self.answers: list[Answer] = []
        self.started = False
        self.finished = False
        self._program = program
        self._next: PhysicalInstruction | None = None
        self._next_at = 0

    def start(self, tick: int) -> None:
        """Open the session, in the ticks before ``tick``, and start the program."""
        for earlier in range(tick):
            self.run_tick(earlier)
        assert self.master.idle
        assert not self.master.has_news
        self.started = True
        self._advance(tick - 1, None)

    def _advance(self, tick: int, response: Response | None) -> None:
        try:
            step = self._program.send(response)
        except StopIteration:
            self.finished = True
            return
        if isinstance(step, int):
            self._next, self._next_at = None, tick + step
        else:
            self._next, self._next_at = step, tick + 1

    def run_tick(self, tick: int) -> None:
        """Exchange one frame."""
        if self.started and not self.finished and self.master.idle and tick >= self._next_at:
            if self._next is None:
                self._advance(tick - 1, None)
            if self._next is not None and not self.finished:
                self._sent = tick
                self.master.submit(self._next)
        response = self.master.incoming(self.device.exchange(tick, self.master.outgoing()))
        if response is not None:
            assert self._next is not None
            self.answers.append(Answer(self._next, self._sent, tick, response))
            self._advance(tick, response)

    def wanted_tick(self, tick: int) -> int | None:
        """The next tick at which this station has something to do."""
        wanted = [self.device.next_tick()]
        if self.master.idle and not self.finished:
            wanted.append(max(self._next_at, tick + 1))
        return min((each for each in wanted if each is not None), default=None)


def run(*stations: Station, order: Sequence[int] | None = None, max_ticks: int = 10**9) -> int:
    """Run until all programs have finished; returns the last tick.

    Args:
        stations: what to run; they share the clock.
        order: in which order the stations exchange within a tick.
        max_ticks: raises AssertionError when this is not enough.
    """
    tick = START_TICK
    ordered = [stations[index] for index in order or range(len(stations))]
    for station in ordered:
        station.start(tick)
    while True:
        for station in ordered:
            station.run_tick(tick)
        if all(station.finished for station in stations):
            return tick
        wanted = [station.wanted_tick(tick) for station in stations]
        tick = max(min(each for each in wanted if each is not None), tick + 1)
        assert tick < max_ticks, f"programs have not finished at tick {tick}"


def sequence(*steps: PhysicalInstruction | int) -> Program:
    """The program that does these steps, whatever the responses."""
    for step in steps:
        _ = yield step


def run_sequences(
    devices: Sequence[BehaviouralNVDevice],
    *sequences: Sequence[PhysicalInstruction | int],
    order: Sequence[int] | None = None,
) -> list[Station]:
    """Run one sequence on each device; returns the stations."""
    stations = [
        Station(device, sequence(*steps)) for device, steps in zip(devices, sequences, strict=True)
    ]
    run(*stations, order=order)
    return stations


def outcomes(station: Station, opcode: Opcode | None = None) -> list[Outcome]:
    """The outcomes a station saw, of all instructions or of those with one opcode."""
    return [
        answer.response.outcome
        for answer in station.answers
        if opcode in (None, answer.instruction.opcode)
    ]


def lone_device(
    noise: NVNoise = NOISELESS,
    timing: NVTiming | None = None,
    seed: int = 1,
    link: EntanglementLink | None = None,
) -> BehaviouralNVDevice:
    """A device without a neighbour."""
    return BehaviouralNVDevice(timing or NVTiming(), noise, link, random.Random(seed))


def two_devices(
    parameters: LinkParameters = CERTAIN,
    noise: NVNoise = NOISELESS,
    seed: int = 1,
    timing: NVTiming | None = None,
) -> list[BehaviouralNVDevice]:
    """Devices "a" and "b" on a link of their own."""
    link = EntanglementLink(parameters, random.Random(seed))
    return [
        BehaviouralNVDevice(
            timing or NVTiming(), noise, link, random.Random(1000 * seed + number), name
        )
        for number, name in enumerate(("a", "b"), start=1)
    ]


def rotation_operator(gate: PhysicalInstruction) -> Any:
    """The rotation an SQG asks for, as a QuTiP operator."""
    return (-0.5j * gate.steps * math.pi / 16 * SIGMA[gate.axis]).expm()


def assert_proportion(hits: int, trials: int, probability: float) -> None:
    """Hits must be binomial with this probability, to `Z_LIMIT` standard deviations."""
    assert trials * min(probability, 1 - probability) >= 5, "too few trials to tell"
    sigma = math.sqrt(trials * probability * (1 - probability))
    deviation = abs(hits - trials * probability)
    assert deviation <= Z_LIMIT * sigma, (
        f"{hits} of {trials} is {deviation / sigma:.1f} standard deviations from {probability:.5f}"
    )


def assert_mean(values: Sequence[float], mean: float, sd: float) -> None:
    """The mean of independent values with a known standard deviation, to `Z_LIMIT`."""
    deviation = abs(sum(values) / len(values) - mean)
    assert deviation <= Z_LIMIT * sd / math.sqrt(len(values)), f"mean is off by {deviation}"
