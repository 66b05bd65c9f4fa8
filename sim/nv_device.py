"""An NV centre that answers frames from physics and a timing table (simulated).

Theory of operation
-------------------
`BehaviouralNVDevice.exchange` reports what is due, prepares its frame, then reads the frame
of the QNPU. A new instruction is carried out at once on the quantum state, with the noise of
the time it takes, and its outcome is kept until the tick it is due. That is exact, because
operations at the two ends of a pair commute and the device takes no other instruction in
between; it means that `state_of` shows the state at the end of the running instruction. Only
a readout waits until it is due: of two readouts on a pair the random numbers mean different
results in different orders, and the order must be that of time (`Qubit.settle`).

Decoupling: the age of a qubit counts from the end of its INI, from its herald, or from the
end of its last readout. Decoupling begins with the first gate after an INI or a readout, which
starts at once, or with the herald; from then on instructions start between two blocks
(`NVTiming.start_ns`), until a readout ends it. The coherences decay up to the start of every
gate; decay before a measurement in the Z basis changes nothing and is left out.

An ENT destroys what the qubit held, as the charge check and the attempts pump it optically.
A qubit that was never initialised, or that a failed ENT left behind, is maximally mixed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState, Outcome
from sim.charge import ChargeCheck, ChargeState
from sim.frame_device import ENTANGLING, LOCAL, MAX_PMG_ROTATIONS, LinkedDevice
from sim.link import EntanglementLink
from sim.noise import NVNoise
from sim.nv_timing import NVTiming
from sim.pauli import Complex, PauliState, Qubit, Readout, dephasing, noisy_rotation

ELECTRON: Final = 0
"""Physical address of the electron spin, the only qubit."""
_XY_ARGUMENTS: Final = 2 * ANGLE_STEPS


class BehaviouralNVDevice(LinkedDevice):
    """One simulated NV node with an electron qubit: a `SimulatedQDevice`.

    Args:
        timing: durations of the instructions.
        noise: noise of the centre.
        link: the link to the neighbour; None for a node that cannot entangle.
        rng: decides about readouts and ionisation of this device; give each device its own.
        name: for messages and reports.

    Raises:
        ValueError: timing and link disagree about the length of a tick.
    """

    def __init__(
        self,
        timing: NVTiming,
        noise: NVNoise,
        link: EntanglementLink | None,
        rng: random.Random,
        name: str = "nv",
    ) -> None:
        if link is not None and link.tick_ns != timing.tick_ns:
            raise ValueError(
                f"{name}: a tick is {timing.tick_ns} ns on the device and {link.tick_ns} ns "
                "on its link; make them equal"
            )
        capabilities = Capabilities(
            name="NV centre, electron spin (simulated, behavioural)",
            communication_qubits=(ELECTRON,),
            memory_qubits=(),
            instructions=LOCAL if link is None else LOCAL | ENTANGLING,
            tick_ns=timing.tick_ns,
            links=0 if link is None else 1,
        )
        super().__init__(name, capabilities)
        self.timing = timing
        self.noise = noise
        self._rng = rng
        self._link_end = None if link is None else link.attach(self._on_batch)
        self._charge = ChargeState()
        self._requested = Opcode.ENT

        self._qubit: Qubit | None = None
        self._origin_ns = 0
        self._decayed_to_ns = 0
        self._decoupled_from_ns: int | None = None
        self._basis: list[int] = []
        self._handlers: dict[Opcode, Callable[[int, PhysicalInstruction], None]] = {
            Opcode.INI: self._initialise,
            Opcode.SQG: self._gate,
            Opcode.MSR: self._measure,
        }
        if link is not None:
            self._handlers |= {
                Opcode.ENT: self._entangle,
                Opcode.ENM: self._entangle,
                Opcode.PMG: self._set_basis,
            }

    # --- for experiments and inspection -------------------------------------------------

    @property
    def charge_checks(self) -> list[ChargeCheck]:
        """For every readout, in order, the first charge check after it (see `sim.charge`)."""
        return self._charge.checks

    def verify_charge(self, tick: int) -> bool:
        """Do a charge check now, as at the end of an experiment; whether it passed.

        It is logged if a readout came after the last check.
        """
        return self._charge.check(tick)

    def qubit(self, address: int = ELECTRON, tick: int | None = None) -> Qubit:
        """A look at the qubit and all it is entangled with, which changes nothing.

        Args:
            address: physical address.
            tick: include this qubit's decay up to then; None: as the last gate left it.

        Returns:
            The handle of this qubit in a copy of the whole state.

        Raises:
            ValueError: no such address.
        """
        if address != ELECTRON:
            raise ValueError(f"{self.name} has qubit {ELECTRON} only, not {address}")
        if self._qubit is None:
            return PauliState.from_populations(0.5).qubits[0]
        copy = self._qubit.state.copy().qubits[self._qubit.index]
        if tick is not None:
            self._decay(copy, tick)
        return copy

    def state_of(self, address: int = ELECTRON, tick: int | None = None) -> Complex:
        """Density matrix of one qubit, shape (2, 2); arguments as for `qubit`."""
        return self.qubit(address, tick).reduced().density_matrix()

    def joint_state(self, other: BehaviouralNVDevice, tick: int) -> PauliState:
        """The state of this qubit and another device's as it is at a tick; a copy.

        Raises:
            ValueError: the two qubits are not two ends of one pair.
        """
        ours, theirs = self._qubit, other._qubit
        if ours is None or theirs is None or ours.state is not theirs.state or ours is theirs:
            raise ValueError(f"{self.name} and {other.name} do not share a pair")
        copy = ours.state.copy()
        for device, qubit in ((self, ours), (other, theirs)):
            device._decay(copy.qubits[qubit.index], tick)
        return copy.reduced(ours.index, theirs.index)

    # --- instructions -------------------------------------------------------------------

    def _start(self, tick: int, instruction: PhysicalInstruction) -> None:
        handler = self._handlers.get(instruction.opcode)
        if handler is None:
            self._complete_at(tick + 1, Outcome.UNSUPPORTED_REQUEST)
        elif instruction.qubit != ELECTRON:
            self._complete_at(tick + 1, Outcome.INVALID_QUBIT)
        else:
            handler(tick, instruction)

    def _initialise(self, tick: int, _: PhysicalInstruction) -> None:
        self._release()
        done = self._ready_tick(tick) + self.timing.initialise_ticks
        state = PauliState.from_populations(1 - self.noise.initialisation_error)
        self._hold(state.qubits[0], done * self.timing.tick_ns)
        self._complete_at(done, Outcome.SUCCESS_ZERO)

    def _gate(self, tick: int, instruction: PhysicalInstruction) -> None:
        if instruction.argument >= _XY_ARGUMENTS or instruction.halvings:
            self._complete_at(tick + 1, Outcome.UNSUPPORTED_REQUEST)
            return
        qubit = self._held(tick)
        start_ns = self._start_ns(tick * self.timing.tick_ns)
        self._rotate(qubit, start_ns, instruction.argument)
        started = start_ns // self.timing.tick_ns
        self._complete_at(started + self.timing.gate_ticks, Outcome.SUCCESS_ZERO)

    def _measure(self, tick: int, _: PhysicalInstruction) -> None:
        qubit = self._held(tick)
        start_ns = self.timing.start_ns(tick * self.timing.tick_ns, self._decoupled_from_ns)
        self._read_out_from(start_ns, qubit)

    def _set_basis(self, tick: int, instruction: PhysicalInstruction) -> None:
        basis = self._basis if instruction.other else []
        allowed = instruction.argument < _XY_ARGUMENTS and len(basis) < MAX_PMG_ROTATIONS
        if allowed and instruction.other <= 1:
            self._basis = [*basis, instruction.argument] if instruction.steps else basis
            self._complete_at(tick + 1, Outcome.SUCCESS_ZERO)
        else:
            self._complete_at(tick + 1, Outcome.UNSUPPORTED_REQUEST)

    def _entangle(self, tick: int, instruction: PhysicalInstruction) -> None:
        if instruction.argument or self._link_end is None:
            self._complete_at(tick + 1, Outcome.UNSUPPORTED_REQUEST)
            return
        self._release()
        self._requested = instruction.opcode
        self._ask(self._link_end, tick, self._ready_tick(tick))

    def _take_pair(self, tick: int, qubit: Qubit, bell: BellState) -> None:
        time_ns = tick * self.timing.tick_ns
        self._hold(qubit, time_ns)
        self._decoupled_from_ns = time_ns - self.timing.herald_lag_ns
        if self._requested is Opcode.ENT:
            self._complete_at(tick, OUTCOME_OF_HERALD[bell])
            return
        for argument in self._basis:
            # The next one is sent at once when this one has been played.
            time_ns = self._start_ns(time_ns)
            self._rotate(qubit, time_ns, argument)
            time_ns += 1
        start_ns = self.timing.start_ns(time_ns, self._decoupled_from_ns)
        self._read_out_from(start_ns, qubit, bell)

    # --- physics ------------------------------------------------------------------------

    def _ready_tick(self, tick: int) -> int:
        """When the centre can be used, after a charge check and perhaps a repump."""
        return tick if self._charge.check(tick) else tick + self.timing.repump_ticks

    def _hold(self, qubit: Qubit, origin_ns: int) -> None:
        """Take over a qubit whose age counts from a time; nothing decouples it yet."""
        self._qubit = qubit
        self._origin_ns = self._decayed_to_ns = origin_ns
        self._decoupled_from_ns = None

    def _start_ns(self, time_ns: int) -> int:
        """When a gate starts that comes at a time; the first one begins the decoupling."""
        start_ns = self.timing.start_ns(time_ns, self._decoupled_from_ns)
        if self._decoupled_from_ns is None:
            self._decoupled_from_ns = start_ns
        return start_ns

    def _held(self, tick: int) -> Qubit:
        """The qubit; maximally mixed if nothing has been prepared."""
        qubit = self._qubit
        if qubit is None:
            qubit = PauliState.from_populations(0.5).qubits[0]
            self._hold(qubit, tick * self.timing.tick_ns)
        return qubit

    def _release(self) -> None:
        if self._qubit is not None:
            self._qubit.discard()
            self._qubit = None

    def _coherence_until(self, time_ns: int) -> float:
        """What the coherences keep from the last decay that was applied until a time."""
        return self.noise.coherence_factor(
            self._decayed_to_ns - self._origin_ns, time_ns - self._origin_ns
        )

    def _decay(self, copy: Qubit, tick: int) -> None:
        """Let a copy of the qubit decay until a tick."""
        time_ns = tick * self.timing.tick_ns
        if time_ns > self._decayed_to_ns:
            copy.apply(dephasing(self._coherence_until(time_ns)))

    def _rotate(self, qubit: Qubit, start_ns: int, argument: int) -> None:
        axis, steps = Axis(argument // ANGLE_STEPS), argument % ANGLE_STEPS
        kept = self._coherence_until(start_ns)
        qubit.apply(noisy_rotation(axis, steps, kept, self.noise.gate_depolarising))
        self._decayed_to_ns = start_ns

    def _read_out_from(self, start_ns: int, qubit: Qubit, herald: BellState | None = None) -> None:
        """Begin a readout at a time."""
        done = self.timing.tick_after(start_ns + self.timing.measure_ns)

        def read_out() -> None:
            self._outcome = self._read_out(qubit, done)

        qubit.readout = Readout(done, read_out)
        self._complete_at(done, Outcome.UNKNOWN_FAILURE, herald)

    def _read_out(self, qubit: Qubit, done: int) -> Outcome:
        """Read the qubit out and hold the state it was projected to."""
        noise, rng = self.noise, self._rng
        self._charge.read_out(ionised=rng.random() < noise.ionisation_per_readout)
        bit = qubit.measure(rng.random())
        dark = bit == 1 or not self._charge.good
        correct = noise.readout_fidelity_1 if dark else noise.readout_fidelity_0
        reported_dark = dark if rng.random() < correct else not dark
        self._hold(PauliState.from_populations(1 - bit).qubits[0], done * self.timing.tick_ns)
        return Outcome.SUCCESS_ONE if reported_dark else Outcome.SUCCESS_ZERO

    def _finish(self) -> None:
        if self._qubit is not None:
            self._qubit.settle()
        super()._finish()
