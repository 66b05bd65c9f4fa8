"""The network process: the kernel process that makes entanglement in its time bins.

It has the highest priority and runs whenever a bin begins in which there is something to
do. One activation goes through these phases:

    PULL      take the head of the link's queue and a communication qubit; finish the
              activation if there is neither, or no time left in the bin for a batch
    RELOCATE  no communication qubit is free: the state of one is moved to a memory qubit
    ATTEMPT   a batch is under way at the device
    AWAIT     receiver: a pair is heralded, the creator's announcement has not come yet
    CORRECT   receiver: gates that turn a kept pair into Phi+
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from qnodeos.errors import PeerProtocolError, QNodeOSError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import HERALDS, BellState, Outcome
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.attempt_basis import AttemptBasis
from qnodeos.qnpu.device_jobs import DeviceJobs, Job
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.execution import DEVICE, FINISHED, WAIT
from qnodeos.qnpu.handover import Handover, Herald
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.link_queue import LinkRequest
from qnodeos.qnpu.process import NETWORK_PID, Process, UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.relocation import Relocation
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.qnpu.time_bins import TimeBins
from qnodeos.trace.events import Event

NETWORK_PRIORITY: Final = 1_000
"""Above every user process."""


class Phase(Enum):
    """What the current activation is doing."""

    PULL = "pull"
    RELOCATE = "relocate"
    ATTEMPT = "attempt"
    AWAIT = "await announcement"
    CORRECT = "correct"


class NetworkProcess(Process):
    """See the module's docstring.

    Attributes:
        queue: physical instructions still to be sent, in order.
        pairs: pairs handed over so far, by peer.
        bins_used: bins in which at least one batch was started.
        bins_missed: bins that had something to do, but the QNPU was in use, or the kernel was
            not run in time.
        bins_blocked: bins that had something to do, but a program kept the qubit.
        bins: the time bins.
        relocation: makes room when no communication qubit is free.
    """

    __slots__ = (
        "_alone_since",
        "_attempt_tick",
        "_basis",
        "_bin",
        "_bin_due",
        "_bin_used",
        "_communication_qubits",
        "_driver",
        "_entanglement",
        "_handover",
        "_herald",
        "_jobs",
        "_limits",
        "_link_layer",
        "_peers",
        "_phase",
        "_physical",
        "_qmmu",
        "_record",
        "_request",
        "_running_pid",
        "bins",
        "bins_blocked",
        "bins_missed",
        "bins_used",
        "pairs",
        "queue",
        "relocation",
    )

    def __init__(
        self,
        *,
        peers: dict[int, int],
        driver: QDriver,
        qmmu: QMMU,
        entanglement: EntanglementManager,
        link_layer: LinkLayer,
        limits: Limits,
        random_choice: Callable[[int], int],
        record: Callable[[int, int, int, int], None],
        fault: Callable[[UserProcess, QNodeOSError], None],
        running_pid: Callable[[], int | None],
        processes: Mapping[int, UserProcess],
    ) -> None:
        super().__init__(NETWORK_PID, NETWORK_PRIORITY)
        self._peers = peers
        self._driver = driver
        self._communication_qubits = driver.capabilities.communication_qubits
        self._qmmu = qmmu
        self._entanglement = entanglement
        self._link_layer = link_layer
        self.bins = TimeBins(peers, link_layer)
        self._limits = limits
        self._record = record
        self._running_pid = running_pid
        self.relocation = Relocation(driver, qmmu, entanglement, processes, fault)
        self._phase = Phase.PULL
        self._request: LinkRequest | None = None
        self._physical = 0
        self._herald: Herald | None = None
        self._bin = -1  # the last bin in which we were active
        self._bin_used = -1
        self._bin_due: int | None = None  # the bin for which we became ready
        self._basis = AttemptBasis(driver, random_choice)
        self._attempt_tick = 0
        self._alone_since: int | None = None  # first of the attempts the peer took no part in
        self._jobs = DeviceJobs(record)
        self.queue: list[PhysicalInstruction] = []
        self._handover = Handover(entanglement, link_layer, self._basis, self.bins, fault)
        self.pairs = self._handover.pairs
        self.bins_used = 0
        self.bins_missed = 0
        self.bins_blocked = 0

    # --- when to run ------------------------------------------------------------------

    @property
    def schedule(self) -> NetworkSchedule | None:
        """The schedule in use."""
        return self.bins.schedule

    def install(self, schedule: NetworkSchedule, from_bin: int | None) -> None:
        """Use a network schedule, from a bin on (of the same length and number as now) or now."""
        self.bins.install(schedule, from_bin)
        if from_bin is None:
            self._bin = -1

    def is_due(self, tick: int) -> bool:
        """Whether there is a job, or a bin has begun in which there is something to do."""
        if self._jobs.waiting:
            return True
        if not self._link_layer.has_requests:
            return False
        schedule = self.bins.at(tick)
        if schedule is None:
            return False
        number = schedule.bin_at(tick)
        if number == self._bin or tick < schedule.attempts_from(number):
            return False
        peer = schedule.peer(number)
        request = None if peer is None else self._link_layer.head(peer, number)
        if request is None:
            return False
        is_late = tick > schedule.last_start(number)  # we were not asked in time
        if is_late or not self._may_get_a_qubit(request):
            self._bin = number  # sit this bin out
            self.bins_missed += is_late
            self.bins_blocked += not is_late
            return False
        self._bin_due = number
        return True

    def _may_get_a_qubit(self, request: LinkRequest) -> bool:
        """Whether there is room for a pair, or the running process may make it.

        That one may give a qubit back before we run. A qubit kept by a process that waits for
        its host is not worth waiting for: the bin would be over, and others could have run.
        """
        running = self._running_pid()
        owners = [self._qmmu.owner(physical) for physical in self._communication_qubits]
        has_qubit = self.relocation.is_possible or running in owners
        return has_qubit and (running is not None or self._has_place(request))

    def _has_place(self, request: LinkRequest) -> bool:
        """Whether our half of the next pair of a request has a place to go to."""
        if request.user is not None:
            return self._entanglement.may_take(request.user)
        socket = self._entanglement.socket(request.peer, request.terms.remote_socket_id)
        return socket is None or self._entanglement.is_ready_for(socket, request.create_id)

    def is_delivering(self, process: UserProcess) -> bool:
        """Whether a pair for a process has been heralded, and will be handed to it soon."""
        herald = self._herald
        return herald is not None and herald.socket is not None and herald.socket.process is process

    def next_due(self, tick: int) -> int | None:
        """The next tick at which `is_due` may become true, None if nothing is pending."""
        if self._jobs.waiting:
            return tick + 1
        return self.bins.next_due(tick)

    def timeout_tick(self) -> int | None:
        """When the wait for an announcement ends, None if there is no such wait."""
        if self._herald is None:
            return None
        return self._herald.tick + self._limits.announcement_timeout_ticks

    def count_pair(self, peer: int) -> None:
        """A pair with another node was handed over."""
        self.pairs[peer] += 1

    # --- jobs -------------------------------------------------------------------------

    def add_job(self, job: Job) -> None:
        """Do something as soon as the QNPU is free; the caller wakes this process if it waits."""
        self._jobs.waiting.append(job)

    def _begin_job(self, tick: int) -> bool:
        """Begin the next job; False if there was nothing to do for the device, so it is done."""
        instructions = self._jobs.begin(tick)
        self.queue.extend(instructions)
        return bool(instructions)

    def _consume_job(self, outcome: Outcome, tick: int) -> int:
        self._jobs.take(outcome)
        if not outcome.is_success:
            self.queue.clear()
        if self.queue:
            return DEVICE
        self._jobs.end(tick)
        return self.run(tick)

    # --- running ----------------------------------------------------------------------

    def run(self, tick: int) -> int:
        """Go on; returns DEVICE, WAIT or FINISHED as a subroutine does."""
        while True:
            if self._jobs.waiting and not self.queue and self._phase in (Phase.PULL, Phase.AWAIT):
                if self._begin_job(tick):
                    return DEVICE
                continue
            if self._phase is Phase.PULL:
                return DEVICE if self._pull(tick) else FINISHED
            if self._phase is Phase.AWAIT and not self._confirm(tick):
                if self._phase is Phase.AWAIT:
                    return WAIT
                continue
            if self.queue:
                return DEVICE
            self._deliver_received()

    def _pull(self, tick: int) -> bool:
        """Start a batch for the head of the queue; False if this bin has no more."""
        schedule = self.bins.at(tick)
        if schedule is None:
            return False  # there was a job only
        number = schedule.bin_at(tick)
        due, self._bin_due = self._bin_due, None
        if due is not None and (due != number or tick > schedule.last_start(number)):
            self._count_missed(schedule, due, tick)  # the QNPU was in use until now
        if number < 0 or tick < schedule.attempts_from(number):
            return False  # a job or a wait has led into the guard of the next bin
        if number != self._bin:
            self._alone_since = None
        self._bin = number
        if tick > schedule.last_start(number):
            return False
        peer = schedule.peer(number)
        request = None if peer is None else self._link_layer.head(peer, number)
        if peer is None or request is None or not self._has_place(request):
            return False
        physical = self._qmmu.first_free(self._communication_qubits)
        if physical is None:
            self.queue.extend(self.relocation.begin())
            self._phase = Phase.RELOCATE if self.queue else Phase.PULL
            return bool(self.queue)
        self._request, self._physical, self._attempt_tick = request, physical, tick
        self._qmmu.reserve(physical)
        link = self._peers[peer]
        if request.is_measured:
            self._record(tick, Event.QNETWORK_ENM_PULL, NETWORK_PID, request.create_id)
            self.queue.extend(self._basis.prepare(request, physical))
            self.queue.append(self._driver.entangle_and_measure(link, physical))
        else:
            self._record(tick, Event.QNETWORK_ENT_PULL, NETWORK_PID, request.create_id)
            self.queue.append(self._driver.entangle(link, physical))
        self._phase = Phase.ATTEMPT
        if number != self._bin_used:
            self._bin_used = number
            self.bins_used += 1
        return True

    def _count_missed(self, schedule: NetworkSchedule, first: int, tick: int) -> None:
        number = schedule.bin_at(tick)
        end = number + (tick > schedule.last_start(number))
        self.bins_missed += sum(schedule.peer(bin_) is not None for bin_ in range(first, end))

    # --- outcomes ---------------------------------------------------------------------

    def consume(self, outcome: Outcome, herald: BellState | None, tick: int) -> int:
        """Take the outcome of the instruction sent last; returns what `run` returns."""
        if self._jobs.current is not None:
            return self._consume_job(outcome, tick)
        if self._phase is Phase.RELOCATE:
            if outcome.is_success and self.queue:
                return DEVICE
            self.queue.clear()
            self._phase = Phase.PULL
            return self.run(tick) if self.relocation.done(outcome) else FINISHED
        if self._phase is Phase.CORRECT:
            if outcome.is_success:
                return DEVICE if self.queue else self.run(tick)
            lost = self._herald
            self.queue.clear()
            self._drop_herald()
            reason = f"the correction of a pair to Phi+ failed: {outcome.name}"
            if lost is not None:
                self._handover.correction_failed(lost, reason)
            return FINISHED
        if self.queue:  # a PMG before the ENM
            if outcome.is_success:
                return DEVICE
            self.queue.clear()
        request = self._request
        assert request is not None
        self._phase = Phase.PULL
        measures = request.is_measured
        if not outcome.is_success or not (measures or outcome in HERALDS):
            return self._attempt_failed(request, outcome, tick)
        physical, measured = self._physical, None
        if measures:
            bell_state = herald if herald is not None else BellState.PHI_PLUS
            self._qmmu.release(physical)
            measured = int(outcome is Outcome.SUCCESS_ONE)
        else:
            bell_state = HERALDS[outcome]
        if request.cancelled:
            if measured is None:
                self._qmmu.release(physical)
            return self.run(tick)
        sequence = self._link_layer.links[request.peer].sequence
        event = Event.EGP_ENT_OK if measured is None else Event.EGP_ENM_OK
        self._record(tick, event, NETWORK_PID, sequence)
        if request.is_theirs:
            kept = physical if measured is None else None
            socket = self._entanglement.socket(request.peer, request.terms.remote_socket_id)
            self._herald = Herald(request, socket, request.done, bell_state, tick, kept, measured)
            self._phase = Phase.AWAIT
        else:
            self._handover.to_creator(request, physical, measured, bell_state, tick)
        return self.run(tick)

    def _attempt_failed(self, request: LinkRequest, outcome: Outcome, tick: int) -> int:
        self._qmmu.release(self._physical)
        if request.is_theirs:
            self._link_layer.refuse_announcements(request.peer)
        if outcome is Outcome.ENTANGLEMENT_FAILURE:
            self._alone_since = None
            return self.run(tick)
        if outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE:
            return self._attempted_alone(tick)
        self._basis.forget()  # a device that restarted has forgotten its basis
        reason = (
            f"the device answered {outcome.name} to an entanglement attempt with node "
            f"{request.peer}"
        )
        self._handover.attempt_failed(request, reason)
        return FINISHED  # the device is ill: leave the rest of this bin

    def _attempted_alone(self, tick: int) -> int:
        """The peer has made no attempt; its QNPU may still be busy with a program."""
        if self._alone_since is None:
            self._alone_since = self._attempt_tick
        if tick - self._alone_since < self._limits.lone_attempt_ticks:
            return self.run(tick)
        self._alone_since = None
        return FINISHED  # leave the rest of this bin to programs

    # --- the receiver's end -----------------------------------------------------------

    def on_announcement(self, peer: int) -> None:
        """An announcement arrived: refuse it unless it can be of the attempt that is open."""
        request = self._request
        announced = self._link_layer.links[peer].announced
        if (
            self._phase in (Phase.PULL, Phase.RELOCATE)
            or request is None
            or request.peer != peer
            or len(announced) > 1
            or announced[-1].tick <= self._attempt_tick  # of an attempt that failed here
        ):
            self._link_layer.refuse_announcements(peer)

    def _confirm(self, tick: int) -> bool:
        """Match herald and announcement; False if it has not come or does not fit."""
        herald = self._herald
        assert herald is not None
        timeout = self.timeout_tick()
        if herald.request.cancelled or (timeout is not None and tick >= timeout):
            self._link_layer.refuse_announcements(herald.request.peer)
            self._drop_herald()
            return False
        try:
            announce = self._link_layer.match(herald.request, herald.index, herald.bell_state)
        except PeerProtocolError:
            self._drop_herald()
            return False
        if announce is None:
            return False
        herald.sequence, herald.announced_tick = announce.sequence, announce.tick
        if herald.physical is not None:
            self.queue.extend(self._driver.correct(herald.bell_state, herald.physical))
        self._phase = Phase.CORRECT
        return True

    def drop_cancelled(self) -> None:
        """Give the qubit back if it waits for the announcement of a request that is off."""
        herald = self._herald
        if self._phase is Phase.AWAIT and herald is not None and herald.request.cancelled:
            self._link_layer.refuse_announcements(herald.request.peer)
            self._drop_herald()

    def _drop_herald(self) -> None:
        herald, self._herald = self._herald, None
        self._phase = Phase.PULL
        if herald is not None and herald.physical is not None:
            self._qmmu.release(herald.physical)

    def _deliver_received(self) -> None:
        herald = self._herald
        assert herald is not None
        if not self._handover.is_wanted(herald):
            self._drop_herald()  # the program ended while its pair was being made
            return
        self._herald = None
        self._phase = Phase.PULL
        self._handover.to_receiver(herald)
