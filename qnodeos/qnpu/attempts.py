"""The attempts of circuits at one node: segments, turns, swaps, and what comes to nothing.

An attempt begins at all nodes of a path with one message that runs along it: Pass, Complete of
the pair before, or Expire of the attempt before. Since messages between neighbours stay in
order, a node that is offered a segment has always heard of its attempt.

Who has told its successor of a half (Track) must not expire the attempt any more: the tail may
have delivered it. All others wait for a bounded time, so the head never waits in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qnodeos.api.peer import Expire, Offer, Segment, TeardownCause, Track
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import HERALDS, BellState, Outcome
from qnodeos.qnpu.circuit_table import CircuitTable, Surroundings, short
from qnodeos.qnpu.circuits import Circuit, CircuitEvent, CircuitState, Half, join_states
from qnodeos.qnpu.device_jobs import Job
from qnodeos.qnpu.link_queue import LinkRequest
from qnodeos.qnpu.process import NETWORK_PID
from qnodeos.qnpu.turns import Turns
from qnodeos.trace.events import Event

_S, _E = CircuitState, CircuitEvent


class Attempts:
    """See the module's docstring. Implements `qnodeos.qnpu.link_layer.Segments`.

    Args:
        around: what the kernel gives.
        table: the circuits of this node.
        finish: at the tail: half and track are here.
        tear_down: ends a circuit, with a cause and a reason.

    Attributes:
        swaps: how many have been made.
    """

    def __init__(
        self,
        around: Surroundings,
        table: CircuitTable,
        finish: Callable[[Circuit, Half, BellState], None],
        tear_down: Callable[[Circuit, TeardownCause, str], None],
    ) -> None:
        self._around = around
        self._table = table
        self._finish = finish
        self._tear_down = tear_down
        self._turns = Turns(self._capacity)
        self._blocked: dict[Circuit, None] = {}  # heads whose program has no place for a qubit
        self._halves: dict[int, Half] = {}
        self.swaps = 0

    # --- beginning --------------------------------------------------------------------

    def begin(self, circuit: Circuit, pair: int, attempt: int, turn_bin: int) -> None:
        """Begin an attempt; what was made for the one before is given up."""
        self.drop_parts(circuit)
        circuit.handle(_E.BEGUN)
        circuit.pair, circuit.attempt = pair, attempt
        circuit.turn = turn_bin, *circuit.id
        circuit.part_tick = None
        if circuit.is_repeater:
            self._watch_turn(circuit)
        if circuit.is_head:
            self._blocked[circuit] = None
            self._unblock(circuit)
        else:
            self._turns.wait(circuit)
        self.let_in()
        self._table.arm(circuit)

    def _watch_turn(self, circuit: Circuit) -> None:
        circuit.part_tick = self._around.now() + self._around.limits.circuit_turn_ticks

    def _make(self, circuit: Circuit) -> None:
        """Make our segments: offer the one to the successor, accept that of the predecessor."""
        circuit.handle(_E.ADMITTED)
        if circuit.is_repeater:
            self._watch_turn(circuit)
        if circuit.successor is not None:
            circuit.downstream_request = self._around.link_layer.offer_segment(
                circuit.successor, circuit.segment, circuit.terms.priority
            )
        self._take_offer(circuit)
        self._table.arm(circuit)

    def _take_offer(self, circuit: Circuit) -> None:
        offer = circuit.offer
        if offer is not None and circuit.state is _S.MAKING:
            assert circuit.predecessor is not None
            circuit.offer = None
            circuit.upstream_request = self._around.link_layer.accept_segment(
                circuit.predecessor, offer
            )

    # --- who may begin ----------------------------------------------------------------

    @property
    def must_look(self) -> bool:
        """Whether `look` may have something to do, as qubits were taken or freed."""
        return self._turns.is_used or bool(self._blocked)

    @property
    def is_short(self) -> bool:
        """Whether circuits wait for qubits, and not because of other circuits."""
        return self._turns.is_waiting and not self._turns.served

    def look(self) -> None:
        """Go on with circuits that waited for qubits, if there are any now."""
        for circuit in list(self._blocked):
            self._unblock(circuit)
        latest = self._turns.latest() if self._is_stuck() else None
        if latest is not None:
            self._stop(latest)
        self.let_in()

    def _unblock(self, circuit: Circuit) -> None:
        """At the head: queue for qubits, if the program has a place for the pair."""
        user = circuit.user
        assert user is not None
        if self._around.entanglement.may_take(user):
            del self._blocked[circuit]
            if user.max_ticks is not None:
                user.deadline_tick = self._around.now() + user.max_ticks
            self._turns.wait(circuit)

    def let_in(self) -> None:
        """Serve those whose turn it is."""
        while True:
            circuit = self._turns.admit()
            if circuit is not None:
                self._make(circuit)
                continue
            later = self._turns.must_make_room()
            if later is None:
                return
            self._stop(later)

    def _stop(self, circuit: Circuit) -> None:
        self.expire(circuit, f"node {self._around.node_id} made room for an earlier circuit")

    def leave(self, circuit: Circuit) -> None:
        """A circuit needs nothing more of this node for its attempt."""
        self._turns.leave(circuit)
        self.let_in()

    def _capacity(self) -> int:
        """How many qubits circuits can have: those that programs have left."""
        usable, qmmu = self._around.usable_qubits, self._around.qmmu
        owners = [qmmu.owner(physical) for physical in usable]
        of_programs = sum(owner not in (None, NETWORK_PID) for owner in owners)
        return len(usable) - of_programs - self._around.entanglement.kept

    def _is_stuck(self) -> bool:
        """Whether all qubits are taken, and those of circuits by halves that wait for others."""
        served, qmmu = self._turns.served, self._around.qmmu
        return (
            len(served) > 1
            and qmmu.first_free(self._around.usable_qubits) is None
            and all(circuit.state is not _S.JOINING for circuit in served)
            and len(qmmu.owned(NETWORK_PID)) == len(self._halves) + self._around.entanglement.kept
            and self._capacity() < sum(circuit.qubits for circuit in served)
        )

    # --- giving up --------------------------------------------------------------------

    def drop_parts(self, circuit: Circuit) -> None:
        """Give up what was made for an attempt, or is being made."""
        self._turns.leave(circuit)
        self._blocked.pop(circuit, None)
        for request in (circuit.upstream_request, circuit.downstream_request):
            if request is not None:
                self._around.link_layer.drop_segment(request)
        for half in (circuit.upstream, circuit.downstream):
            if half is not None:
                self.release(half)
        circuit.upstream_request = circuit.downstream_request = None
        circuit.upstream = circuit.downstream = None
        circuit.offer = circuit.track = circuit.swapped = None

    def expire(self, circuit: Circuit, reason: str, turn_bin: int | None = None) -> None:
        """Our part of an attempt has come to nothing.

        Args:
            circuit: of the attempt.
            reason: for people.
            turn_bin: of the next attempt; that of this one if not given.
        """
        most = self._around.limits.circuit_attempts
        pair, attempt = circuit.place
        if attempt + 1 >= most:
            self._tear_down(
                circuit,
                TeardownCause.FAILED,
                f"circuit_attempts={most} attempts at pair {pair} between nodes "
                f"{circuit.id.head} and {circuit.destination} came to nothing; the last: {reason}",
            )
            return
        turn_bin = circuit.turn[0] if turn_bin is None else turn_bin
        self._table.send_along(circuit, Expire(circuit.id, pair, attempt, turn_bin, short(reason)))
        self.begin(circuit, pair, attempt + 1, turn_bin)

    def is_late(self, circuit: Circuit, tick: int) -> None:
        """What a circuit waited for at a repeater or the tail has not come in time."""
        me = self._around.node_id
        if circuit.state is _S.WAITING and self._capacity() < circuit.qubits:
            self.expire(circuit, f"programs keep the qubits of node {me}")
        elif circuit.state is _S.WAITING:
            self._watch_turn(circuit)
        else:
            held = circuit.upstream is not None or circuit.downstream is not None
            what = "waited too long for its partner" if held else "took too long to be made"
            self.expire(circuit, f"a segment at node {me} {what}", self._around.next_bin())

    # --- qubits -----------------------------------------------------------------------

    def release(self, half: Half) -> None:
        """Give the qubit of a half back."""
        if half.physical is not None:
            self._around.qmmu.release(self.take_qubit(half))

    def take_qubit(self, half: Half) -> int:
        """The qubit of a half, which the caller sees to from now on."""
        physical = half.physical
        assert physical is not None
        del self._halves[physical]
        half.physical = None
        return physical

    def relocated(self, old: int, new: int | None) -> None:
        """The state of one of our qubits is in another one now; None: it was lost."""
        half = self._halves.pop(old, None)
        if half is None:
            return
        half.physical = new
        if new is not None:
            self._halves[new] = half
            return
        self._around.qmmu.release(old)
        for circuit in self._table:
            if half in (circuit.upstream, circuit.downstream) and not circuit.is_head:
                self.expire(circuit, f"node {self._around.node_id} lost a qubit when moving it")

    # --- segments ---------------------------------------------------------------------

    def offered(self, peer: int, offer: Offer) -> None:
        """See `qnodeos.qnpu.link_layer.Segments`."""
        segment = offer.terms.segment
        circuit = None if segment is None else self._table.get(segment.circuit)
        if circuit is None or circuit.predecessor != peer or circuit.segment != segment:
            return  # of an attempt that is off; its creator will hear of that
        if circuit.state in (_S.WAITING, _S.MAKING) and circuit.upstream_request is None:
            circuit.offer = offer
            self._take_offer(circuit)

    def failed(self, segment: Segment, reason: str) -> None:
        """See `qnodeos.qnpu.link_layer.Segments`."""
        circuit = self._table.get(segment.circuit)
        if circuit is not None and circuit.segment == segment and circuit.is_attempting:
            self.expire(circuit, reason)

    def made(self, request: LinkRequest, physical: int, tick: int) -> None:
        """See `qnodeos.qnpu.link_layer.Segments`."""
        segment = request.segment
        circuit = None if segment is None else self._table.get(segment.circuit)
        if circuit is None or request.cancelled:
            self._around.qmmu.release(physical)
            return
        half = self._halves[physical] = Half(physical)
        if request is circuit.upstream_request:
            circuit.upstream, circuit.upstream_request = half, None
        else:
            circuit.downstream, circuit.downstream_request = half, None
        if circuit.is_head:
            circuit.handle(_E.JOINED)
            self._send_track(circuit, BellState.PHI_PLUS)
        elif circuit.upstream is not None and circuit.downstream is not None:
            self._swap(circuit, circuit.upstream, circuit.downstream)
        elif circuit.is_tail and circuit.track is not None:
            self._begin_finish(circuit, half, circuit.track)
        else:
            self._hold(circuit, tick)
        self._table.arm(circuit)

    def _hold(self, circuit: Circuit, tick: int) -> None:
        """A half has to wait for its partner, or to hear of it: but not for ever."""
        cutoff_ticks = self._around.limits.pair_cutoff_ticks
        if cutoff_ticks:
            until = tick + cutoff_ticks
            circuit.part_tick = min(until, circuit.part_tick or until)

    # --- swaps and tracks -------------------------------------------------------------

    def _swap(self, circuit: Circuit, first: Half, second: Half) -> None:
        """At a repeater: join the two segments of an attempt."""
        place = circuit.place
        circuit.handle(_E.PARTS_HERE)
        circuit.upstream = circuit.downstream = circuit.part_tick = None

        def prepare() -> Sequence[PhysicalInstruction]:
            if first.physical is None or second.physical is None:
                return ()
            return (self._around.driver.swap_entanglement(first.physical, second.physical),)

        def done(outcomes: Sequence[Outcome], tick: int) -> None:
            self.release(first)
            self.release(second)
            if circuit.state is _S.JOINING and circuit.place == place:
                self._swapped(circuit, outcomes[-1] if outcomes else Outcome.UNKNOWN_FAILURE)

        self._around.add_job(
            Job(
                prepare,
                done,
                Event.QNETWORK_SWAP_PULL,
                Event.QNETWORK_SWAP_RET,
                circuit.id.number,
            )
        )

    def _swapped(self, circuit: Circuit, outcome: Outcome) -> None:
        found = HERALDS.get(outcome)
        if found is None:
            self.expire(
                circuit, f"the swap at node {self._around.node_id} failed with {outcome.name}"
            )
            return
        self.swaps += 1
        circuit.handle(_E.JOINED)
        circuit.swapped = found
        if circuit.track is not None:
            self._send_track(circuit, join_states(circuit.track, found))
        self.leave(circuit)

    def _send_track(self, circuit: Circuit, bell_state: BellState) -> None:
        assert circuit.successor is not None
        self._table.send(circuit.successor, Track(circuit.id, *circuit.place, bell_state))

    def on_track(self, circuit: Circuit, bell_state: BellState) -> None:
        """The state of the pair from the head to us is known."""
        circuit.track = bell_state
        if circuit.is_tail and circuit.upstream is not None:
            self._begin_finish(circuit, circuit.upstream, bell_state)
        elif circuit.swapped is not None:
            self._send_track(circuit, join_states(bell_state, circuit.swapped))
        else:
            self._around.record(Event.QNPD_TRACK_CACHED, circuit.id.number)

    def _begin_finish(self, circuit: Circuit, half: Half, bell_state: BellState) -> None:
        circuit.handle(_E.PARTS_HERE)
        circuit.upstream = circuit.part_tick = None
        self._table.arm(circuit)
        self._finish(circuit, half, bell_state)
