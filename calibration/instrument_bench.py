"""The bench of real and simulated nodes: instruments that are set up, and a QDevice.

Programs of physical instructions go over the wire as the QNPU's do, frame by frame; photons and
charge checks come from the logs of the ADbasic program. The same code runs on hardware and in a
simulated laboratory; a device that can say when its next news comes (`SimulatedQDevice`) spares
the ticks until then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from calibration.bench import ArrivalHistogram, PairShots, Program, Shots, Side, Wait
from calibration.errors import CalibrationError
from calibration.file import NodeCalibration
from drivers.nv_setup import NVInstruments, NVSettings
from instruments.heralding import MAX_DELAY_NS
from instruments.timetagger import TimeTagger
from qnodeos.qdevice import instructions
from qnodeos.qdevice.endpoint import FrameMaster, Response
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import HERALDS, Outcome
from qnodeos.qdevice.protocols import QDevice
from sequences.nv_seqc import attempt_period_ns
from sequences.program import SAMPLE_RATE_HZ
from sequences.waveform_table import attempt_optical_start

LOGGED_SHOTS: Final = 500
"""Shots after which the logs are fetched."""
LOG_LENGTH: Final = 20_000
"""Entries that a log of the ADbasic program holds."""
PATIENCE_TICKS: Final = 1_000_000
"""Bound on the time of one instruction, 10 s."""
BATCHES_MAX: Final = 1_000_000
"""Bound on the batches of attempts for one pair."""
REPEATED: Final = frozenset({Outcome.ENTANGLEMENT_FAILURE, Outcome.ENTANGLEMENT_SYNC_FAILURE})
"""Answers after which ENT is sent again: no photon, or the nodes did not meet."""
MISSED_MAX: Final = 1_000
"""Bound on the batches for which the nodes do not meet, while photons are collected."""
TAGGER_MARKERS: Final[Mapping[str, int]] = {"client": 1, "server": 2}
"""Inputs of the time tagger with the toggle lines of the nodes' ADwins (DIO line 11)."""
TAGGER_DETECTORS: Final = (3, 4)
"""Its inputs with the detectors, as in the Station files."""
ARRIVAL_BIN_NS: Final = 1.0
ARRIVALS_BEFORE_NS: Final = 50.0
"""How much of an arrival histogram lies before the arrival without delay: delays are positive."""
_NS_PER_SAMPLE: Final = 1e9 / SAMPLE_RATE_HZ
_PS_PER_NS: Final = 1_000
_FLIP: Final = instructions.sqg(Axis.X, 16)


def emission_delay_ns(calibration: NodeCalibration) -> float:
    """How much later than it would by itself a node emits, to meet the other's photons.

    ``attempt_offset_ns`` is how much later its photons arrive, so only the node where that is
    negative has to wait. The other's is the opposite, and makes it wait for nothing.
    """
    return max(0.0, -calibration.attempt_offset_ns.value)


def node_settings(calibration: NodeCalibration, base: NVSettings) -> NVSettings:
    """What a node is set up with, according to its calibration.

    Args:
        calibration: of the node.
        base: everything that is chosen rather than measured.
    """
    table = calibration.to_table_settings()
    attempt = base.table.attempt
    shifted = replace(
        attempt,
        alpha_to_optical_ns=attempt.alpha_to_optical_ns + emission_delay_ns(calibration),
    )
    return replace(
        base,
        table=replace(table, attempt=shifted),
        controller=replace(
            base.controller,
            cr_us=round(calibration.cr_us.value),
            cr_threshold=round(calibration.cr_threshold.value),
            readout_us=round(calibration.readout_us.value),
            log_shots=1,
        ),
        mw_frequency_hz=calibration.mw_frequency_hz.value,
        mw_power_dbm=calibration.mw_power_dbm.value,
    )


class TickClock:
    """The ticks of one or more devices that are exchanged with together."""

    def __init__(self) -> None:
        self.tick = 0


class Line:
    """One device and the QNPU's end of the wire to it.

    Args:
        device: at the other end.
        clock: shared by all devices of a bench.
    """

    def __init__(self, device: QDevice, clock: TickClock) -> None:
        self._device = device
        self._clock = clock
        self._master = FrameMaster()
        self._next_tick: Callable[[], int | None] | None = getattr(device, "next_tick", None)

    @property
    def is_idle(self) -> bool:
        """Whether an instruction can be handed over."""
        return self._master.idle

    def submit(self, instruction: PhysicalInstruction) -> None:
        """Hand over an instruction; it goes out with the next exchange."""
        self._master.submit(instruction)

    def exchange(self) -> Response | None:
        """Exchange the frames of this tick."""
        frame = self._device.exchange(self._clock.tick, self._master.outgoing())
        return self._master.incoming(frame)

    def next_news(self) -> int | None:
        """The first tick from now at which an exchange may bring something; None for never."""
        if self._master.has_news or self._next_tick is None:
            return self._clock.tick
        news = self._next_tick()
        return None if news is None else max(news, self._clock.tick)

    def run(self, instruction: PhysicalInstruction) -> Outcome:
        """Have one instruction executed.

        Raises:
            CalibrationError: the device does not answer, or refuses.
        """
        clock = self._clock
        self.submit(instruction)
        started = clock.tick
        while True:
            response = self.exchange()
            clock.tick += 1
            if response is not None:
                break
            news = self.next_news()
            clock.tick = clock.tick if news is None else news
            if clock.tick - started > PATIENCE_TICKS:
                raise CalibrationError(
                    f"{instruction} is not answered within {PATIENCE_TICKS} ticks; look at the "
                    "state of the node's controller"
                )
        self.require_success(instruction, response.outcome)
        return response.outcome

    def require_success(self, instruction: PhysicalInstruction, outcome: Outcome) -> None:
        """Make sure that an instruction did what it was asked to.

        Raises:
            CalibrationError: it did not.
        """
        if not outcome.is_success:
            raise CalibrationError(
                f"{instruction} was answered {outcome.name}; look at the instruments of "
                f"{self._device.capabilities.name}"
            )


class InstrumentBench:
    """A node to be calibrated: a `calibration.bench.CalibrationNode`.

    Args:
        name: of the node.
        instruments: set up.
        device: of these instruments.
        calibration: what the instruments were set up with.
        base: everything that is chosen rather than measured.
        apply_settings: sets the instruments up anew.
        clock: of a bench of two nodes; None for one of its own.
    """

    def __init__(
        self,
        name: str,
        instruments: NVInstruments,
        device: QDevice,
        calibration: NodeCalibration,
        base: NVSettings,
        apply_settings: Callable[[NVSettings], None],
        clock: TickClock | None = None,
    ) -> None:
        self._name = name
        self._base = base
        self._calibration = calibration
        self._apply_settings = apply_settings
        self._clock = clock or TickClock()
        self.instruments = instruments
        self.line = Line(device, self._clock)
        apply_settings(node_settings(calibration, base))

    @property
    def name(self) -> str:
        """Of the node."""
        return self._name

    @property
    def calibration(self) -> NodeCalibration:
        """The values in use."""
        return self._calibration

    def snapshot(self) -> dict[str, Any]:
        """Of the QCoDeS station: every setting of every instrument."""
        return self.instruments.snapshot()

    def apply(self, calibration: NodeCalibration) -> None:
        """Use other values: builds and uploads what depends on them."""
        self._apply_settings(node_settings(calibration, self._base))
        self._calibration = calibration

    @property
    def emission_ns(self) -> tuple[float, float]:
        """From the start of an attempt to its optical pulse, as it is played in whole samples.

        All of it, and the part of it that is there to meet the other node's photons
        (`emission_delay_ns`).
        """
        table = self.instruments.table
        assert table is not None
        played = attempt_optical_start(table.settings)
        alone = attempt_optical_start(replace(table.settings, attempt=self._base.table.attempt))
        return played * _NS_PER_SAMPLE, (played - alone) * _NS_PER_SAMPLE

    def shots(self, program: Program, shots: int) -> Shots:
        """Run a program many times.

        Raises:
            CalibrationError: an instruction fails, or a log was lost.
        """
        steps = list(self._with_preparation(program))
        readouts = sum(not isinstance(s, Wait) and s.opcode is Opcode.MSR for s in steps)
        inits = sum(not isinstance(s, Wait) and s.opcode is Opcode.INI for s in steps)
        if max(readouts, inits) * LOGGED_SHOTS > LOG_LENGTH:
            raise CalibrationError(
                f"a program with {readouts} readouts and {inits} initialisations; at most "
                f"{LOG_LENGTH // LOGGED_SHOTS} of each fit the logs"
            )
        bits: list[int] = []
        photons: list[NDArray[Any]] = []
        counts: list[NDArray[Any]] = []
        controller = self.instruments.controller
        controller.take_photon_log()
        controller.take_check_log()
        for start in range(0, shots, LOGGED_SHOTS):
            for _ in range(min(LOGGED_SHOTS, shots - start)):
                for step in steps:
                    if isinstance(step, Wait):
                        self._clock.tick += step.ticks
                    elif step.opcode is Opcode.MSR:
                        bits.append(int(self.line.run(step) is Outcome.SUCCESS_ONE))
                    else:
                        self.line.run(step)
            photons.append(controller.take_photon_log())
            counts.append(controller.take_check_log())
        return Shots(
            np.array(bits, np.int8).reshape(shots, readouts),
            self._logged(photons, shots, readouts, "photon"),
            self._logged(counts, shots, inits, "charge check"),
        )

    def _with_preparation(self, program: Program) -> Iterable[PhysicalInstruction | Wait]:
        for step in program:
            yield step
            is_init = not isinstance(step, Wait) and step.opcode is Opcode.INI
            if is_init and self._calibration.ini_state == 1:
                yield _FLIP

    def _logged(
        self, parts: Sequence[NDArray[Any]], shots: int, each: int, what: str
    ) -> NDArray[np.int32]:
        log = np.concatenate(parts) if parts else np.zeros(0)
        if log.size != shots * each:
            raise CalibrationError(
                f"{self.name}: the {what} log has {log.size} entries and {shots * each} were "
                "expected; does somebody else use the node?"
            )
        return log.astype(np.int32).reshape(shots, each)


@dataclass(frozen=True)
class ArrivalSetup:
    """What it takes to see single photons arrive at the heralding station.

    Attributes:
        tagger: with the toggle lines at `TAGGER_MARKERS` and the detectors at
            `TAGGER_DETECTORS`.
        block: shuts off the optical pulses of one side, so that only photons of the other
            arrive, and opens both again for None. A shutter, or somebody who is asked to.
        flight_ns: by side, from the optical pulse to the time tagger, less the way of the
            marker there: as far as it is known.
    """

    tagger: TimeTagger
    block: Callable[[Side | None], None]
    flight_ns: Mapping[Side, float]


class InstrumentPair:
    """Two nodes on a link: a `calibration.bench.CalibrationPair`.

    With a time tagger it is a `calibration.bench.ArrivalBench`.

    Args:
        client: one node.
        server: the other; both on the same clock.
        clock: of both.
        arrivals: the time tagger and what belongs to it; None without.
    """

    def __init__(
        self,
        client: InstrumentBench,
        server: InstrumentBench,
        clock: TickClock,
        arrivals: ArrivalSetup | None = None,
    ) -> None:
        self._client = client
        self._server = server
        self._clock = clock
        self._arrivals = arrivals

    @property
    def client(self) -> InstrumentBench:
        """One node."""
        return self._client

    @property
    def server(self) -> InstrumentBench:
        """The other."""
        return self._server

    def pairs(
        self,
        basis_client: Sequence[PhysicalInstruction],
        basis_server: Sequence[PhysicalInstruction],
        pairs: int,
    ) -> PairShots:
        """Entangle, rotate at both nodes and read out, until there are so many pairs.

        Raises:
            CalibrationError: no pair comes, or an instruction fails.
        """
        heralds = np.zeros(pairs, np.int8)
        bits = np.zeros((pairs, 2), np.int8)
        attempts = np.zeros(pairs, np.int64)
        counter = self._client.instruments.station.heralding.attempts
        before = int(counter())
        plans = ([*basis_client, instructions.msr()], [*basis_server, instructions.msr()])
        lines = self._client.line, self._server.line
        for pair in range(pairs):
            heralds[pair] = self._entangle()
            after = int(counter())
            attempts[pair], before = (after - before) & 0xFFFF_FFFF, after
            for side, outcomes in enumerate(self._together(plans)):
                for instruction, outcome in zip(plans[side], outcomes, strict=True):
                    lines[side].require_success(instruction, outcome)
                bits[pair, side] = outcomes[-1] is Outcome.SUCCESS_ONE
        return PairShots(heralds, bits, attempts, _period_ns(self._client))

    def arrival_histogram(self, side: Side, attempts: int) -> ArrivalHistogram:
        """Make attempts with the optical pulses of one side alone.

        Both nodes attempt, batch by batch; a shutter keeps back the pulses of the other, and
        the detection window is moved to where no photon comes, so that nothing is heralded.
        The time tagger starts with the toggle edge of the word that begins the attempts, so its
        histogram is as long as a batch. It is folded by the period of the attempts.

        Args:
            side: whose photons.
            attempts: at least so many, in whole batches.

        Raises:
            CalibrationError: there is no time tagger, or the attempts fail.
            InstrumentError: the time tagger cannot take a histogram as long as a batch.
        """
        setup = self._arrivals
        if setup is None:
            raise CalibrationError("this bench has no time tagger; awg-delay needs one")
        other: Side = "server" if side == "client" else "client"
        bench = self._client if side == "client" else self._server
        period_ns = _period_ns(bench)
        settings = bench.instruments.settings
        assert settings is not None
        marker = TAGGER_MARKERS[side]
        tagger, window = setup.tagger, self._client.instruments.station.heralding.window_delay_ns
        tagger.start_channels([marker, -marker])
        tagger.click_channels(list(TAGGER_DETECTORS))
        tagger.bin_width_ps(round(ARRIVAL_BIN_NS * _PS_PER_NS))
        tagger.bins(math.ceil((settings.attempts_per_batch + 1) * period_ns / ARRIVAL_BIN_NS))
        batches = math.ceil(attempts / settings.attempts_per_batch)
        with ExitStack() as restored:
            # Each by itself: the shutter opens even if the station refuses the window.
            restored.callback(setup.block, None)
            restored.callback(window, window())
            setup.block(other)
            window(min(MAX_DELAY_NS, round(period_ns / 2)))
            histogram = tagger.histogram_during(partial(self._attempt, batches))
        counts = histogram.folded(period_ns * _PS_PER_NS).counts
        emission_ns, shift_ns = bench.emission_ns
        expected_ns = emission_ns + setup.flight_ns[side]
        first = math.floor((expected_ns - ARRIVALS_BEFORE_NS) / ARRIVAL_BIN_NS)
        return ArrivalHistogram(
            first * ARRIVAL_BIN_NS,
            ARRIVAL_BIN_NS,
            # A later delay than a period cannot be told from an earlier one.
            np.roll(counts, -first % counts.size),
            expected_ns,
            shift_ns,
        )

    def _attempt(self, batches: int) -> None:
        """Make batches of attempts that herald nothing."""
        request = [instructions.ent()]
        missed = 0
        while batches:
            outcomes = {done[-1] for done in self._together((request, request))}
            if outcomes == {Outcome.ENTANGLEMENT_FAILURE}:
                batches -= 1
            elif outcomes == {Outcome.ENTANGLEMENT_SYNC_FAILURE} and missed < MISSED_MAX:
                missed += 1
            else:
                raise CalibrationError(
                    "attempts that can herald nothing were answered "
                    f"{', '.join(sorted(outcome.name for outcome in outcomes))}; check the "
                    "detection window, the herald lines and both nodes"
                )

    def _entangle(self) -> int:
        request = [instructions.ent()]
        for _ in range(BATCHES_MAX):
            first, second = (outcomes[-1] for outcomes in self._together((request, request)))
            for node, outcome in ((self._client, first), (self._server, second)):
                if not outcome.is_success and outcome not in REPEATED:
                    raise CalibrationError(
                        f"{node.name}: a batch of attempts was answered {outcome.name}; look at "
                        "the instruments of this node"
                    )
            if first in HERALDS and first is second:
                return int(HERALDS[first])
            if first.is_success or second.is_success:
                raise CalibrationError(
                    f"the nodes disagree on a herald: {first.name} and {second.name}"
                )
        raise CalibrationError(
            f"no herald in {BATCHES_MAX} batches; check lasers, detection window and alpha"
        )

    def _together(self, plans: Sequence[Sequence[PhysicalInstruction]]) -> list[list[Outcome]]:
        """Have both nodes execute their instructions, side by side."""
        clock = self._clock
        lines = self._client.line, self._server.line
        outcomes: list[list[Outcome]] = [[], []]
        started = clock.tick
        submitted = [0, 0]
        while any(len(done) < len(plan) for done, plan in zip(outcomes, plans, strict=True)):
            wanted = []
            for side, line in enumerate(lines):
                if line.is_idle and submitted[side] < len(plans[side]):
                    line.submit(plans[side][submitted[side]])
                    submitted[side] += 1
                if line.next_news() == clock.tick:
                    response = line.exchange()
                    if response is not None:
                        outcomes[side].append(response.outcome)
            clock.tick += 1
            for side, line in enumerate(lines):
                if line.is_idle and submitted[side] < len(plans[side]):
                    wanted.append(clock.tick)
                elif (news := line.next_news()) is not None:
                    wanted.append(news)
            if wanted:
                clock.tick = max(clock.tick, min(wanted))
            if clock.tick - started > PATIENCE_TICKS:
                raise CalibrationError(
                    f"the nodes have not finished within {PATIENCE_TICKS} ticks; look at the "
                    "states of the ADwins' programs"
                )
        return outcomes


def _period_ns(bench: InstrumentBench) -> float:
    """Of the attempts of a node."""
    table, settings = bench.instruments.table, bench.instruments.settings
    assert table is not None
    assert settings is not None
    return attempt_period_ns(table, settings.herald)
