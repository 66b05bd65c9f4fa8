"""The ends of circuits: what the tail and the head do with the halves of a pair that is made.

The tail makes its half that of Phi+, measures it if it was asked to, delivers it and tells the
head, which does the same with its own. On its way the message begins the next pair.
"""

from __future__ import annotations

from collections.abc import Callable

from qnodeos.api.peer import Complete
from qnodeos.errors import CallerError, DeviceFailureError
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.attempts import Attempts
from qnodeos.qnpu.circuit_table import CircuitTable, Surroundings
from qnodeos.qnpu.circuits import Circuit, CircuitEvent, CircuitState, Half
from qnodeos.qnpu.device_jobs import Job
from qnodeos.qnpu.isa import INT32_MAX
from qnodeos.qnpu.measured_half import Basis, Measured, creator_basis, pair_of, receiver_basis

_S, _E = CircuitState, CircuitEvent


class Ends:
    """See the module's docstring.

    Args:
        around: what the kernel gives.
        table: the circuits of this node.
        attempts: begins the next pair.
    """

    def __init__(self, around: Surroundings, table: CircuitTable, attempts: Attempts) -> None:
        self._around = around
        self._table = table
        self._attempts = attempts
        self._sequences: dict[int, int] = {}  # by head

    # --- the tail ---------------------------------------------------------------------

    def finish(self, circuit: Circuit, half: Half, bell_state: BellState) -> None:
        """At the tail: the pair is made, and its state known."""
        place = circuit.place

        def done(measured: Measured, tick: int) -> None:
            if circuit.state is not _S.JOINING or circuit.place != place:
                self._attempts.release(half)
            elif not measured.is_success:
                self._attempts.release(half)
                self._attempts.expire(
                    circuit,
                    f"the correction or measurement at node {self._around.node_id} failed with "
                    f"{measured.outcome.name}",
                )
            else:
                self._deliver_at_tail(circuit, half, measured, tick)

        basis = receiver_basis(circuit.terms, self._around.random_choice)
        self._handle(circuit, half, bell_state, basis, done)

    def _deliver_at_tail(self, circuit: Circuit, half: Half, measured: Measured, tick: int) -> None:
        head, (pair, attempt), socket = circuit.id.head, circuit.place, circuit.socket
        assert socket is not None
        assert circuit.predecessor is not None
        sequence = self._sequences.get(head, 0)
        self._sequences[head] = (sequence + 1) & INT32_MAX
        turn_bin = self._around.next_bin()
        circuit.handle(_E.JOINED)
        self._table.send(
            circuit.predecessor,
            Complete(circuit.id, pair, attempt, sequence, tick, turn_bin),
        )
        physical = self._qubit_to_deliver(half, measured.basis)
        self._around.count_pair(head)
        try:
            self._around.entanglement.deliver_to_receiver(
                socket, pair_of(circuit.terms, sequence, physical, measured, tick)
            )
        except CallerError as error:
            self._around.fault(socket.process, error)
        if not circuit.has_ended:
            self._next_pair(circuit, turn_bin)

    # --- on the way -------------------------------------------------------------------

    def complete(self, circuit: Circuit, complete: Complete) -> None:
        """The tail has its half of the pair: so may the head."""
        if circuit.predecessor is not None:
            self._table.send(circuit.predecessor, complete)
        else:
            half, circuit.downstream = circuit.downstream, None
            assert half is not None
            self._deliver_at_head(circuit, half, complete)
            if circuit.has_ended:
                return
        self._next_pair(circuit, complete.turn_bin)

    def _next_pair(self, circuit: Circuit, turn_bin: int) -> None:
        if circuit.pair + 1 < circuit.terms.pairs:
            self._attempts.begin(circuit, circuit.pair + 1, 0, turn_bin)
        else:
            circuit.handle(_E.COMPLETED)
            self._attempts.leave(circuit)

    # --- the head ---------------------------------------------------------------------

    def _deliver_at_head(self, circuit: Circuit, half: Half, complete: Complete) -> None:
        user = circuit.user
        assert user is not None
        process = user.socket.process

        def done(measured: Measured, tick: int) -> None:
            if not self._around.entanglement.is_outstanding(user):
                self._attempts.release(half)
                return
            if not measured.is_success:
                self._attempts.release(half)
                self._around.fault(process, measured.error())
                return
            physical = self._qubit_to_deliver(half, measured.basis)
            self._around.count_pair(circuit.destination)
            if user.max_ticks is not None:
                user.deadline_tick = self._around.now() + user.max_ticks
            try:
                self._around.entanglement.deliver_to_creator(
                    user,
                    pair_of(circuit.terms, complete.sequence, physical, measured, complete.tick),
                )
            except CallerError as error:
                self._around.fault(process, error)

        if half.physical is None:
            self._around.fault(
                process,
                DeviceFailureError("one end of a pair was lost when it was moved to a memory"),
            )
            return
        basis = creator_basis(user, self._around.random_choice)
        if basis is None:
            kept = Measured(self._around.driver, BellState.PHI_PLUS, None)
            done(kept, self._around.now())
        else:
            self._handle(circuit, half, BellState.PHI_PLUS, basis, done)

    # --- both -------------------------------------------------------------------------

    def _handle(
        self,
        circuit: Circuit,
        half: Half,
        bell_state: BellState,
        basis: Basis | None,
        done: Callable[[Measured, int], None],
    ) -> None:
        """Have the device correct a half, and measure it if there is a basis."""
        measured = Measured(self._around.driver, bell_state, basis)
        self._around.add_job(
            Job(
                lambda: measured.instructions(half.physical),
                lambda outcomes, tick: done(measured.result(outcomes), tick),
                detail=circuit.id.number,
            )
        )

    def _qubit_to_deliver(self, half: Half, basis: Basis | None) -> int | None:
        """The qubit of a half that is kept; that of a measured one is free."""
        if basis is None:
            return self._attempts.take_qubit(half)
        self._attempts.release(half)
        return None
