"""A node with several qubits that answers frames from physics and durations (simulated).

Theory of operation
-------------------
`RegisterDevice.exchange` reports what is due, prepares its frame, then reads the frame of the
QNPU. A new instruction is carried out at once on the quantum state (`sim.register`), and its
outcome is kept until the tick it is due; `state_of` therefore shows the state at the end of the
running instruction. That is exact, because operations of different nodes commute. Only readouts
and Bell measurements wait until they are due, and are done in the order of time, then of the
names of their devices (`Qubit.settle`), so that results do not depend on which node exchanges
its frame first, and so that a chain of Bell measurements joins two pairs at a time.

There are no decoupling blocks and no charge checks: `sim.nv_device` has those.

What the instructions do to qubits they leave behind: ENT and ENM destroy what the qubit held, and
a failure leaves it maximally mixed, as MOV leaves its source and ESW both its qubits.

In a star (`RegisterPhysics.star`, an NV centre), TQG takes the communication qubit as the first
and rotates about X or Y, MOV and SWP take it as one of their two qubits, and MSR as the only
one; anything else is UNSUPPORTED_REQUEST. An ESW of two memories goes through it (two swaps).

After an ESW of the near halves of two pairs, both in Phi+, the two far halves are in the Bell
state that the outcome names. At one of the two ends, whichever: X for Psi+, Z for Phi-, Y (that
is X and Z) for Psi- makes it Phi+ (`QDriver.correct`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState, Outcome
from sim import register
from sim.charge import ChargeCheck
from sim.frame_device import ENTANGLING, LOCAL, MAX_PMG_ROTATIONS, LinkedDevice
from sim.link import EntanglementLink
from sim.pauli import Complex, PauliState, Qubit, Readout
from sim.register import Held, Register
from sim.register_physics import RegisterPhysics

_ROTATIONS: Final = len(Axis) * ANGLE_STEPS
_ROTATIONS_ABOUT_XY: Final = 2 * ANGLE_STEPS
_PAIR: Final = frozenset({Opcode.TQG, Opcode.MOV, Opcode.SWP, Opcode.ESW})


class RegisterDevice(LinkedDevice):
    """One simulated node with several qubits: a `SimulatedQDevice`.

    Args:
        physics: the qubits, their errors and durations.
        links: the links to its neighbours; ENT names one by its place here.
        rng: decides about readouts of this device; give each device its own.
        name: for messages and reports. Give each device its own: readouts at the same tick are
            done in the order of the names.

    Raises:
        ValueError: physics and a link disagree about the length of a tick.
    """

    def __init__(
        self,
        physics: RegisterPhysics,
        links: Sequence[EntanglementLink],
        rng: random.Random,
        name: str = "register",
    ) -> None:
        for place, link in enumerate(links):
            if link.tick_ns != physics.tick_ns:
                raise ValueError(
                    f"{name}: a tick is {physics.tick_ns} ns on the device and {link.tick_ns} ns "
                    f"on its link {place}; make them equal"
                )
        self.physics = physics
        communication = tuple(range(physics.communication_qubits))
        kind = "NV centre with carbon memories" if physics.star else "generic register"
        capabilities = Capabilities(
            name=f"{kind} (simulated, behavioural)",
            communication_qubits=communication,
            memory_qubits=tuple(range(len(communication), physics.qubits)),
            instructions=LOCAL
            | (_PAIR if physics.qubits > 1 else frozenset())
            | (ENTANGLING if links else frozenset()),
            tick_ns=physics.tick_ns,
            links=len(links),
            angle_halvings=physics.angle_halvings,
        )
        super().__init__(name, capabilities)
        self._ends = [link.attach(self._on_batch) for link in links]
        self._reading: Qubit | None = None
        self._request = PhysicalInstruction(Opcode.ENT)

        self._register = Register(physics, rng, name, owner=self)
        self._bases: dict[int, list[int]] = {}
        handlers: dict[Opcode, Callable[[int, PhysicalInstruction], None]] = {
            Opcode.INI: self._initialise,
            Opcode.SQG: self._rotate,
            Opcode.MSR: self._measure,
            Opcode.TQG: self._rotate_controlled,
            Opcode.MOV: self._move,
            Opcode.SWP: self._swap,
            Opcode.ESW: self._swap_entanglement,
            Opcode.ENT: self._entangle,
            Opcode.ENM: self._entangle,
            Opcode.PMG: self._set_basis,
        }
        self._handlers = {opcode: handlers[opcode] for opcode in capabilities.instructions}

    # --- for experiments and inspection -------------------------------------------------

    @property
    def charge_checks(self) -> list[ChargeCheck]:
        """None: this device has no charge state."""
        return []

    def verify_charge(self, tick: int) -> bool:
        """Always passes, at any tick: this device has no charge state."""
        return True

    def qubit(self, address: int = 0, tick: int | None = None) -> Qubit:
        """A look at a qubit and all it shares a state with, which changes nothing.

        Args:
            address: physical address.
            tick: include this qubit's decay up to then; None: as the last operation left it.

        Returns:
            The handle of this qubit in a copy of the whole state.

        Raises:
            ValueError: no such address.
        """
        held = self._register.at(address)
        if held is None:
            return register.mixed()
        copy = held.qubit.state.copy().qubits[held.qubit.index]
        if tick is not None:
            held.decay_copy(copy, tick * self.physics.tick_ns)
        return copy

    def state_of(self, address: int = 0, tick: int | None = None) -> Complex:
        """Density matrix of one qubit, shape (2, 2); arguments as for `qubit`."""
        return self.qubit(address, tick).reduced().density_matrix()

    def entangled_with(self, address: int) -> list[tuple[RegisterDevice, int]]:
        """The qubits of all nodes that share a state with a qubit, itself first.

        Those that met it in gates are among them even if the gates left no entanglement.

        Raises:
            ValueError: no such address.
        """
        held = self._register.at(address)
        if held is None:
            return [(self, address)]
        holders = [qubit.holder for qubit in held.qubit.state.qubits]
        others = [
            (holder.register.owner, holder.address)
            for holder in holders
            if isinstance(holder, Held)
            and holder is not held
            and isinstance(holder.register.owner, RegisterDevice)
        ]
        return [(self, address), *sorted(others, key=lambda half: (half[0].name, half[1]))]

    def held(self, address: int) -> Held | None:
        """What an address holds; None if nothing has been prepared.

        Raises:
            ValueError: no such address.
        """
        return self._register.at(address)

    @property
    def register(self) -> Register:
        """The quantum state of the qubits."""
        return self._register

    # --- instructions -------------------------------------------------------------------

    def _start(self, tick: int, instruction: PhysicalInstruction) -> None:
        opcode, _, qubit, other = instruction
        handler = self._handlers.get(opcode)
        qubits = self.physics.qubits
        if handler is None:
            self._refuse(tick)
        elif qubit >= qubits or (opcode in _PAIR and (other >= qubits or other == qubit)):
            self._complete_at(tick + 1, Outcome.INVALID_QUBIT)
        elif self._can(instruction):
            handler(tick, instruction)
        else:
            self._refuse(tick)

    def _can(self, instruction: PhysicalInstruction) -> bool:
        """Whether these qubits have that operation, and the angle or link exists."""
        opcode, argument, qubit, other = instruction
        physics = self.physics
        communicates = qubit < physics.communication_qubits
        if opcode is Opcode.SQG:
            return argument < _ROTATIONS and other <= physics.angle_halvings
        if opcode is Opcode.TQG:
            if physics.star:
                return communicates and argument < _ROTATIONS_ABOUT_XY
            return argument < _ROTATIONS
        if opcode in (Opcode.MOV, Opcode.SWP):
            return not physics.star or 0 in (qubit, other)
        if opcode in (Opcode.ENT, Opcode.ENM):
            return communicates and argument < len(self._ends)
        if opcode in (Opcode.MSR, Opcode.PMG):
            return communicates
        return True

    def _initialise(self, tick: int, instruction: PhysicalInstruction) -> None:
        address = instruction.qubit
        done = tick + self.physics.of(address).initialise_ticks
        self._register.initialise(address, self._ns(done))
        self._complete_at(done, Outcome.SUCCESS_ZERO)

    def _rotate(self, tick: int, instruction: PhysicalInstruction) -> None:
        address = instruction.qubit
        self._register.rotate(
            address, instruction.axis, instruction.steps, instruction.halvings, self._ns(tick)
        )
        self._complete_at(tick + self.physics.of(address).gate_ticks, Outcome.SUCCESS_ZERO)

    def _rotate_controlled(self, tick: int, instruction: PhysicalInstruction) -> None:
        _, _, first, second = instruction
        self._register.rotate_controlled(
            first, second, instruction.axis, instruction.steps, self._ns(tick)
        )
        self._complete_at(tick + self.physics.pair_gate_ticks, Outcome.SUCCESS_ZERO)

    def _move(self, tick: int, instruction: PhysicalInstruction) -> None:
        self._register.move(instruction.qubit, instruction.other, self._ns(tick))
        self._complete_at(tick + self.physics.move_ticks, Outcome.SUCCESS_ZERO)

    def _swap(self, tick: int, instruction: PhysicalInstruction) -> None:
        self._register.swap(instruction.qubit, instruction.other, self._ns(tick))
        self._complete_at(tick + self.physics.swap_ticks, Outcome.SUCCESS_ZERO)

    def _swap_entanglement(self, tick: int, instruction: PhysicalInstruction) -> None:
        _, _, first, second = instruction
        physics = self.physics
        pair = self._register.begin_bell(first, second, self._ns(tick))
        done = tick + physics.entanglement_swap_ticks
        if physics.star and 0 not in (first, second):
            done += 2 * physics.swap_ticks

        def read_out() -> Outcome:
            return OUTCOME_OF_HERALD[self._register.read_bell(*pair)]

        self._read_at(done, (pair[0].qubit, pair[1].qubit), read_out)

    def _measure(self, tick: int, instruction: PhysicalInstruction) -> None:
        self._read_out_from(tick, self._register.ready(instruction.qubit, self._ns(tick)))

    def _set_basis(self, tick: int, instruction: PhysicalInstruction) -> None:
        argument, append = instruction.argument, instruction.other
        basis = self._bases.get(instruction.qubit, []) if append else []
        if argument >= _ROTATIONS or append > 1 or len(basis) >= MAX_PMG_ROTATIONS:
            self._refuse(tick)
            return
        self._bases[instruction.qubit] = [*basis, argument] if instruction.steps else basis
        self._complete_at(tick + 1, Outcome.SUCCESS_ZERO)

    def _entangle(self, tick: int, instruction: PhysicalInstruction) -> None:
        self._register.release(instruction.qubit)
        self._request = instruction
        self._ask(self._ends[instruction.argument], tick, tick)

    def _take_pair(self, tick: int, qubit: Qubit, bell: BellState) -> None:
        address = self._request.qubit
        held = self._register.hold(address, qubit, self._ns(tick))
        if self._request.opcode is Opcode.ENT:
            self._complete_at(tick, OUTCOME_OF_HERALD[bell])
            return
        for argument in self._bases.get(address, []):
            axis, steps = Axis(argument // ANGLE_STEPS), argument % ANGLE_STEPS
            self._register.rotate(address, axis, steps, 0, self._ns(tick))
            tick += self.physics.communication.gate_ticks
        held.decay(self._ns(tick))
        self._read_out_from(tick, held, bell)

    # --- readouts -----------------------------------------------------------------------

    def _read_out_from(self, tick: int, held: Held, herald: BellState | None = None) -> None:
        """Begin a readout at a tick."""
        done = tick + self.physics.communication.measure_ticks

        def read_out() -> Outcome:
            bit = self._register.read(held, self._ns(done))
            return Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO

        self._read_at(done, (held.qubit,), read_out, herald)

    def _read_at(
        self,
        done: int,
        qubits: tuple[Qubit, ...],
        read_out: Callable[[], Outcome],
        herald: BellState | None = None,
    ) -> None:
        """Have a measurement done when it is due, or before if a partner's comes later."""

        def carry_out() -> None:
            self._reading = None
            self._outcome = read_out()

        readout = Readout(done, carry_out, self.name, qubits)
        for qubit in qubits:
            qubit.readout = readout
        self._reading = qubits[0]
        self._complete_at(done, Outcome.UNKNOWN_FAILURE, herald)

    def _ns(self, tick: int) -> int:
        return tick * self.physics.tick_ns

    # --- outcomes -----------------------------------------------------------------------

    def _refuse(self, tick: int) -> None:
        self._complete_at(tick + 1, Outcome.UNSUPPORTED_REQUEST)

    def _finish(self) -> None:
        if self._reading is not None:
            self._reading.settle()
        super()._finish()


def joint_state(halves: Sequence[tuple[RegisterDevice, int]], tick: int) -> PauliState:
    """The state of any qubits of any devices as it is at a tick; a copy.

    Qubits that share no state are in a product.

    Args:
        halves: device and physical address of each qubit.
        tick: their decay is included up to then.

    Returns:
        The state, its qubits in the order of ``halves``.

    Raises:
        LimitError: more qubits than one state can have.
        ValueError: no qubit, no such address, or one qubit twice.
    """
    registers = [(device.register, address) for device, address in halves]
    tick_ns = halves[0][0].physics.tick_ns if halves else 0
    return register.joint_state(registers, tick * tick_ns)
