"""One simulated NV node, instrument by instrument, on its own time.

Theory of operation
-------------------
The ADwin's program decides everything, once a microsecond (an *event*). The node executes an
event only if something could come of it: `next_action` says which is the next, from what the
program waits for (`_WAITS`), and `act` leaves out the events before, in which the program would
count and nothing else. With ``skipping=False`` every event is executed; a test compares.

The AWG is let run only when somebody needs what it plays, and never beyond the event that may
command it next: the program reads its lines and writes to them at the start of an event, and
what the AWG shows by then has been ordered before (its output is later than the order by more
than that takes).

Light, microwaves and photons meet in the NV centre in the order of time: before the light
changes, everything the AWG has played until then is given to the spin.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

from instruments import nv_controller as wiring
from sequences.nv_seqc import ATTEMPT, TOGGLE
from sim.adwin.dll import SimulatedADwin
from sim.adwin.errors import HardwareFault
from sim.adwin.frames import NEVER
from sim.adwin.hardware import Edge, InMemoryHardware
from sim.adwin.options import ProcessorModel
from sim.adwin.process import Process
from sim.adwin.system import AdwinSystem
from sim.hdawg import HdawgTiming, Play, SimulatedDataServer, SimulatedHdawg
from sim.hdawg.timeline import Repeat
from sim.lab.heralding import Attempts, HeraldingStation
from sim.lab.played import Alphas, Meaning, Meanings
from sim.lab.spin_feed import SpinFeed
from sim.lab.timing import (
    NS_PER_EVENT,
    SAMPLES_PER_EVENT,
    SAMPLES_PER_NS,
    LabTiming,
    ns_of_sample,
    sample_of_ns,
)
from sim.nv.centre import NVCentre
from sim.nv.optics import OpticalWiring
from sim.nv.physics import NVPhysics
from sim.nv.spin import ElectronSpin, Microwaves

IDLE: Final = wiring.STATES.index("idle")
PLAYING: Final = wiring.STATES.index("playing")
READOUT: Final = wiring.STATES.index("readout")
NEIGHBOUR: Final = wiring.STATES.index("neighbour")
ATTEMPTS: Final = wiring.STATES.index("attempts")
STOPPING: Final = wiring.STATES.index("stopping")
AGREE: Final = wiring.STATES.index("agree")

ATTEMPTING: Final = frozenset({ATTEMPTS, STOPPING})
LISTENING: Final = frozenset({NEIGHBOUR, AGREE})
_LEVELS: Final = LISTENING | ATTEMPTING
"""States that may end at once, by a level that is there already."""
_WATCHING: Final = frozenset({PLAYING, ATTEMPTS, STOPPING})
"""States in which the program looks at what the AWG does."""

AWG_CORE: Final = 0
MAX_PEER_EVENTS: Final = 1_000
"""Changes of the neighbour's lines that are remembered; older ones are over."""
_AWG_LINES: Final = 0xBFF
_HERALD_BIT: Final = 1 << 10
_END_OF_TIME: Final = 1 << 60

CLOCKED_T12: Final = ProcessorModel.t12().model_copy(update={"external_clock_cycles": NS_PER_EVENT})
"""A T12 (a cycle is a nanosecond) with the laboratory's 1 MHz clock at its event input."""


class LabNode:
    """One node.

    Args:
        name: of the node.
        serial: of its HDAWG.
        physics: of its NV centre.
        microwaves: asked for the state of its microwave source.
        station: the heralding station, None for a node without a neighbour.
        index: 0 or 1, its place at the station.
        timing: delays of the laboratory.
        awg_timing: latencies of the AWG.
        seed: of its randomness.
        skipping: leave out events in which nothing happens.
        observed_cores: of the AWG, those that really run. The others play the same at the same
            time, and the laboratory takes every signal from core 0.

    Attributes:
        system: the ADwin.
        wrapper: the vendor's wrapper on it, for a driver.
        awg: the HDAWG.
        data_server: with the HDAWG, for a driver.
        centre: the NV centre.
        event: the last event that was executed or left out; event k is at k microseconds.
        peer: the other node.
        executed: how many events were really executed.
        attempt_period_samples: period of its attempts, once it is known.
        last_arrival: when the photon of its last attempt arrives, in samples.
        idle_since: the event in which the last instruction was answered.
    """

    def __init__(
        self,
        name: str,
        serial: str,
        physics: NVPhysics,
        microwaves: Callable[[], Microwaves],
        station: HeraldingStation | None,
        index: int,
        timing: LabTiming,
        awg_timing: HdawgTiming,
        seed: str,
        skipping: bool = True,
        observed_cores: Collection[int] = (AWG_CORE,),
    ) -> None:
        self.name = name
        self.index = index
        self.peer: LabNode | None = None
        self._station = station
        self._timing = timing
        self._skipping = skipping
        spin = ElectronSpin(physics, microwaves, random.Random(f"{seed}/lines"))
        optics = OpticalWiring(
            dac_module=wiring.DAC_MODULE,
            repump_channel=wiring.REPUMP_DAC,
            e_channel=wiring.E_DAC,
            a_channel=wiring.A_DAC,
            counter_module=wiring.COUNTER_MODULE,
            counter=wiring.PHOTON_COUNTER,
        )
        self.centre = NVCentre(physics, spin, random.Random(f"{seed}/light"), optics)
        self._hardware = InMemoryHardware(_Light(self), self._on_edge)
        self.system = AdwinSystem(self._hardware, CLOCKED_T12)
        self.wrapper = SimulatedADwin(self.system, use_numpy_arrays=True)
        self.awg = SimulatedHdawg(serial, timing=awg_timing, observed=observed_cores)
        self.data_server = SimulatedDataServer([self.awg])
        self._core = self.awg.cores[AWG_CORE]
        self._meanings = Meanings()
        self._feed = SpinFeed(self.centre, self._meanings)
        self._alphas = Alphas(physics)

        self.event = 0
        self.executed = 0
        self._state_changed = False
        self._has_pulsed = False
        self._outputs = 0
        self._dio_word = 0
        self._herald_edges: deque[tuple[int, int]] = deque()
        self._herald_events: deque[int] = deque()
        self._peer_events: deque[int] = deque(maxlen=MAX_PEER_EVENTS)
        self._played_event: int | None = None
        self._edges = self._core.trigger_edges
        self._last_attempt: Play | None = None
        self.last_arrival = 0.0
        self.attempt_period_samples: int | None = None
        self._program = self._core.program
        self._response: tuple[int, int] | None = None
        self.idle_since = 0

    # --- the program ---------------------------------------------------------------------

    @property
    def process(self) -> Process:
        """The process of the ADwin program.

        Raises:
            KeyError: it has not been loaded.
        """
        return self.system.processes[wiring.PROCESS]

    @property
    def state(self) -> int:
        """What the program is doing; an index into `instruments.nv_controller.STATES`."""
        return self.system.memory.par[wiring.COUNTERS["state_number"]]

    @property
    def due_event(self) -> int:
        """The event at which the state ends if nothing else ends it."""
        process = self.process
        return self.event + int(process.variable("v_due")) - int(process.variable("v_now"))

    def begin(self, event: int) -> None:
        """Let the program run, every event of it, up to and including one."""
        self.system.run_until_cycle(event * NS_PER_EVENT + 1)
        self.event = event
        self.executed = self.process.events
        self.awg.run_until(max(self.awg.now, event * SAMPLES_PER_EVENT))
        self._collect()

    def act(self, event: int) -> None:
        """Go to an event, later than the last one, and execute it."""
        left_out = event - self.event - 1
        if left_out > 0:
            if self._skipping:
                self._leave_out(left_out)
            else:
                for between in range(self.event + 1, event):
                    self._execute(between)
        self._execute(event)

    def _execute(self, event: int) -> None:
        before = self.state
        if before in _WATCHING:
            self.run_awg(event * SAMPLES_PER_EVENT)
        self._has_pulsed = False
        self.system.run_event(wiring.PROCESS)
        self.event = event
        self.executed += 1
        if self._skipping and self.process.lost_events:
            raise HardwareFault(
                f"{self.name}: the ADwin program took longer than its event at {event} us, and "
                "events were lost; shorten what it does there"
            )
        state = self.state
        self._state_changed = state != before
        if self._state_changed and state == IDLE:
            self.idle_since = event
        # Frames that the QNPU exchanges without news are left out; they fetch the response.
        word = self._hardware.spi_fetch(wiring.SPI_MODULE)
        if word is not None:
            self._response = (event + 1, word)

    def _leave_out(self, events: int) -> None:
        process = self.process
        ticks, phase = divmod(int(process.variable("v_phase")) + events, wiring.TICK_EVENTS)
        changes = {"v_now": events, "v_phase": phase - int(process.variable("v_phase"))}
        busy = CLOCKED_T12.costs.event + 2 * CLOCKED_T12.costs.instruction
        self.system.skip(wiring.PROCESS, events, changes, busy)
        self.system.memory.par[wiring.COUNTERS["ticks"]] += ticks
        self.event += events

    def response_for(self, event: int) -> int:
        """The frame that lies ready for the exchange just before an event.

        Raises:
            RuntimeError: the program has prepared none, so it does not know where ticks begin.
        """
        if self._response is None or self._response[0] != event:
            raise RuntimeError(f"{self.name}: no frame is ready before event {event}")
        return self._response[1]

    def receive(self, frame: int) -> None:
        """A frame of the QNPU arrives, just before the next event."""
        self._hardware.spi_exchange(wiring.SPI_MODULE, frame)

    # --- what comes next --------------------------------------------------------------------

    def next_action(self) -> int:
        """The next event that may do something; `NEVER` if it depends on input alone."""
        following = self.event + 1
        state = self.state
        if state == IDLE:
            return NEVER
        if self._state_changed and state in _LEVELS:
            return following
        due = self.due_event
        wanted = due
        if state == PLAYING:
            self._find_played(due)
            if self._played_event is not None:
                wanted = self._played_event
        elif state == READOUT and self._has_pulsed:
            # The counter may have counted after it was latched.
            wanted = following
        elif state == READOUT:
            photon_ns = self.centre.next_photon_ns(due * NS_PER_EVENT)
            if photon_ns is not None:
                wanted = photon_ns // NS_PER_EVENT
        elif state in LISTENING:
            wanted = self._next_of(self._peer_events, due)
        elif state in ATTEMPTING:
            wanted = self._next_of(self._herald_events, due)
            if state == STOPPING and self._played_event is not None:
                wanted = min(wanted, self._played_event)
        return max(following, min(wanted, due))

    def _next_of(self, events: deque[int], due: int) -> int:
        # An edge may come after the program has looked in its event, so the next counts too.
        while events and events[0] < self.event:
            events.popleft()
        return events[0] if events else due

    # --- wires ------------------------------------------------------------------------------

    def _on_edge(self, edge: Edge) -> None:
        changed = edge.word ^ self._outputs
        self._outputs = edge.word
        if changed & _AWG_LINES:
            self._command_awg(edge.cycle)
        if changed & TOGGLE and self._station is not None:
            self._station.toggle(self.index, edge.cycle, bool(edge.word & TOGGLE))
        if changed >> wiring.CPLD_RESET_LINE & 1 and edge.word >> wiring.CPLD_RESET_LINE & 1:
            self._lower_herald(edge.cycle)
        if self.peer is not None:
            for line, theirs in (
                (wiring.READY_LINE, wiring.PEER_READY_LINE),
                (wiring.SUCCESS_LINE, wiring.PEER_SUCCESS_LINE),
            ):
                if changed >> line & 1:
                    self.peer.hear(edge.cycle, theirs, bool(edge.word >> line & 1))

    def hear(self, cycle: int, line: int, level: bool) -> None:
        """The other node's ADwin changes one of its lines."""
        arrival = cycle + round(self._timing.neighbour_cable_ns)
        self._hardware.schedule_input(arrival, wiring.DIO_MODULE, line, level)
        self._peer_events.append(arrival // NS_PER_EVENT)

    def raise_herald(self, time_ns: float, detector: int) -> None:
        """The heralding station raises the herald line, and says which detector clicked."""
        cycle = int(time_ns)
        for line, level in (
            (wiring.DETECTOR_LINE, bool(detector)),
            (wiring.HERALD_LINE, True),
        ):
            self._hardware.schedule_input(cycle, wiring.DIO_MODULE, line, level)
        self._herald_events.append(cycle // NS_PER_EVENT)
        self._herald_edges.append((sample_of_ns(time_ns), 1))

    def _lower_herald(self, cycle: int) -> None:
        for line in (wiring.DETECTOR_LINE, wiring.HERALD_LINE):
            self._hardware.schedule_input(cycle, wiring.DIO_MODULE, line, False)
        self._herald_edges.append((sample_of_ns(cycle), 0))

    # --- the AWG --------------------------------------------------------------------------

    def _command_awg(self, cycle: int) -> None:
        sample = sample_of_ns(cycle + self._timing.dio_cable_ns)
        self._bring_herald_to(sample)
        self._dio_word = self._outputs & _AWG_LINES | self._dio_word & _HERALD_BIT
        self.awg.write_dio(sample, self._dio_word)
        self._played_event = None
        if self._dio_word & ATTEMPT:
            self._last_attempt = None

    def _bring_herald_to(self, sample: int) -> None:
        while self._herald_edges and self._herald_edges[0][0] <= sample:
            at, level = self._herald_edges.popleft()
            self._dio_word = self._dio_word & ~_HERALD_BIT | _HERALD_BIT * level
            self.awg.write_dio(at, self._dio_word)

    def run_awg(self, sample: int) -> None:
        """Let the AWG run up to a sample, and pass on what it does."""
        self._bring_herald_to(sample)
        if sample > self.awg.now:
            self.awg.run_until(sample)
        self._collect()

    @property
    def awg_sample(self) -> int:
        """Up to where the AWG has run."""
        return self.awg.now

    @property
    def last_attempt_sample(self) -> int | None:
        """Start of the last attempt ordered since the AWG was last commanded."""
        return None if self._last_attempt is None else self._last_attempt.start_sample

    def _find_played(self, due: int) -> None:
        """Let the AWG run until it has ordered what the program waits for."""
        if self.awg.now < self.event * SAMPLES_PER_EVENT:
            self.run_awg(self.event * SAMPLES_PER_EVENT)
        while self._played_event is None and self.awg.now < due * SAMPLES_PER_EVENT:
            # Nothing new can be played before the end of what is queued.
            ahead = self._core.player.free_at - self.awg.now
            events = max(1, ahead // SAMPLES_PER_EVENT)
            reached = -(-self.awg.now // SAMPLES_PER_EVENT)
            if reached * SAMPLES_PER_EVENT == self.awg.now:
                reached += events
            self.run_awg(min(reached, due) * SAMPLES_PER_EVENT)

    def _collect(self) -> None:
        """Pass on what the AWG has put on its connectors, also ahead of its time."""
        edges = self._core.trigger_edges
        if edges is not self._edges:
            # The core was started anew, with its trigger outputs low.
            self._edges = edges
            self._hardware.schedule_input(
                self.system.now_cycle, wiring.DIO_MODULE, wiring.ACKNOWLEDGE_LINE, False
            )
        cable = self._timing.trigger_cable_ns * SAMPLES_PER_NS
        for sample, word in edges:
            cycle, level = ns_of_sample(sample + cable), bool(word & 1)
            self._hardware.schedule_input(cycle, wiring.DIO_MODULE, wiring.ACKNOWLEDGE_LINE, level)
        edges.clear()
        for item in self._core.player.timeline.take(_END_OF_TIME):
            self._take_play(item)

    def _take_play(self, item: Play | Repeat) -> None:
        first, count, period = item, 1, 0
        if isinstance(item, Repeat):
            attempt = next((play for play in item.plays if self._is_attempt(play)), None)
            if attempt is None:
                self._feed.append(item)
                return
            first = attempt._replace(start_sample=item.start_sample + attempt.start_sample)
            count, period = item.count, item.period_samples
        assert isinstance(first, Play)
        if first.waveform is None:
            return
        meaning = self._meanings.of(first.waveform)
        if meaning.optical_sample is not None:
            self._attempt(first, meaning, count, period)
            return
        self._feed.append(first)
        if meaning.played is not None:
            cable = self._timing.trigger_cable_ns * SAMPLES_PER_NS
            for offset, level in zip(meaning.played, (True, False), strict=True):
                cycle = ns_of_sample(first.start_sample + offset + cable)
                self._hardware.schedule_input(cycle, wiring.DIO_MODULE, wiring.PLAYED_LINE, level)
                if level:
                    self._played_event = cycle // NS_PER_EVENT

    def _is_attempt(self, play: Play) -> bool:
        return (
            play.waveform is not None
            and self._meanings.of(play.waveform).optical_sample is not None
        )

    def _attempt(self, play: Play, meaning: Meaning, count: int, period: int) -> None:
        if self._core.program is not self._program:
            self._program, self.attempt_period_samples = self._core.program, None
        before = self._last_attempt
        if count > 1:
            self.attempt_period_samples = period
        elif before is not None and self.attempt_period_samples is None:
            self.attempt_period_samples = play.start_sample - before.start_sample
        self._last_attempt = play._replace(start_sample=play.start_sample + (count - 1) * period)
        optical = meaning.optical_sample
        assert optical is not None
        flight = self._timing.photon_flight_ns * SAMPLES_PER_NS
        self.last_arrival = self._last_attempt.start_sample + optical + flight
        if self._station is None:
            return
        self._station.add(
            self.index,
            Attempts(
                arrival_sample=play.start_sample + optical + flight,
                gate=meaning.gate
                and (
                    optical + flight - meaning.gate[0],
                    meaning.gate[1] - meaning.gate[0],
                ),
                period_samples=period,
                count=count,
                alpha=self._alphas.of(meaning.waveform, self.centre.spin.current_drive()),
                alpha_sample=play.start_sample + meaning.pulse_centre_sample,
            ),
        )

    def output_gains(self, core: int) -> tuple[float, float]:
        """Factors of the two outputs of a core; 0 for one that is switched off."""
        return self.awg.output_gains(core)

    # --- the spin -----------------------------------------------------------------------------

    def bring_spin_to(self, time_ns: float) -> None:
        """Give the spin everything that was played before a time."""
        limit = round(time_ns * SAMPLES_PER_NS)
        self.run_awg_to_pass(limit)
        self._feed.bring_to(limit)

    def note_pulse(self) -> None:
        """The detector has pulsed in the event at hand."""
        self._has_pulsed = True

    def run_awg_to_pass(self, sample: int) -> None:
        """Let the AWG run if it is behind and decouples; its program commands nothing now."""
        if self._core.is_running and self.awg.now < sample - SAMPLES_PER_EVENT:
            self.run_awg(sample // SAMPLES_PER_EVENT * SAMPLES_PER_EVENT)


class _Light:
    """The photon source of the ADwin: the centre, with the spin kept up to date."""

    def __init__(self, node: LabNode) -> None:
        self._node = node

    def emit(self, start_cycle: int, stop_cycle: int) -> Any:
        """See `sim.adwin.hardware.PhotonSource`."""
        pulses = self._node.centre.emit(start_cycle, stop_cycle)
        if pulses:
            self._node.note_pulse()
        return pulses

    def dac_changed(self, cycle: int, module: int, channel: int, code: int) -> None:
        """See `sim.adwin.hardware.PhotonSource`."""
        self._node.bring_spin_to(cycle)
        self._node.centre.dac_changed(cycle, module, channel, code)
