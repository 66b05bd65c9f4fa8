"""A trapped ion that answers frames from physics and a timing table (simulated).

Theory of operation
-------------------
`BehaviouralIonDevice.exchange` reports what is due, prepares its frame, then reads the frame of
the QNPU. A new instruction is carried out at once on the state, with the decay of the time since
the last one, and its outcome is kept until the tick it is due. Nothing else acts on the ion in
between, so that is exact.

The state is a Bloch vector; +z is S1/2, that is |0>, bright. A pulse is a rotation by a multiple of
pi/2, which permutes its components, and depolarises it. Between instructions it loses coherence
and D5/2 decays. A measurement projects it; the result is then reported wrong with the
probabilities of the count distributions. That a D5/2 which decays while photons are counted is
both reported wrong and left in S1/2 is not modelled: the two happen independently here. Neither is
the motion: a pulse on an ion that was found bright, and has not been cooled since, errs no more
than any other here, while `sim.ion.ion` has it at the Doppler limit.

An ion that was never initialised is maximally mixed.
"""

from __future__ import annotations

import random
from typing import Final

import numpy as np

from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from sequences.ion import OPERATION_OF_INSTRUCTION, IonOperation
from sim.frame_device import LOCAL, FrameDevice
from sim.ion.physics import TURNS, Bloch, IonPhysics
from sim.ion_timing import IonTiming
from sim.pauli import Complex

ION: Final = 0
"""Physical address of the ion, the only qubit."""

_WHOLE: Final = frozenset({IonOperation.X_PI, IonOperation.Y_PI})


class BehaviouralIonDevice(FrameDevice):
    """One simulated trapped-ion node: a `SimulatedQDevice`.

    Args:
        timing: durations of the instructions.
        noise: physics of the ion and its detection.
        rng: decides about measurements; give each device its own.
        name: for messages and reports.
    """

    def __init__(
        self, timing: IonTiming, noise: IonPhysics, rng: random.Random, name: str = "ion"
    ) -> None:
        capabilities = Capabilities(
            name="trapped ion (simulated, behavioural)",
            communication_qubits=(ION,),
            memory_qubits=(),
            instructions=LOCAL,
            tick_ns=timing.tick_ns,
            links=0,
        )
        super().__init__(name, capabilities)
        self.timing = timing
        self.noise = noise
        self._random = rng.random
        self._bloch: Bloch = (0.0, 0.0, 0.0)
        self._decayed_to = 0
        self._kept = 1 - noise.gate_depolarising
        self._dark_when_bright, self._bright_when_dark = noise.readout_errors(
            timing.detection_us, timing.threshold
        )
        self._ticks = {
            operation: timing.pi_ticks if operation in _WHOLE else timing.half_pi_ticks
            for operation in TURNS
        }

    # --- for inspection -----------------------------------------------------------------

    def state_of(self, address: int = ION, tick: int | None = None) -> Complex:
        """Density matrix, shape (2, 2), in the basis |0>, |1>.

        Args:
            address: physical address.
            tick: include the decay up to then; None: as the last instruction left it.

        Raises:
            ValueError: no such address.
        """
        if address != ION:
            raise ValueError(f"{self.name} has qubit {ION} only, not {address}")
        x, y, z = self._bloch if tick is None else self._decayed(tick)
        return np.array([[1 + z, x - 1j * y], [x + 1j * y, 1 - z]], dtype=np.complex128) / 2

    # --- instructions -------------------------------------------------------------------

    def _start(self, tick: int, instruction: PhysicalInstruction) -> None:
        opcode, argument, qubit, _ = instruction
        operation = OPERATION_OF_INSTRUCTION.get((opcode, argument))
        if opcode not in self._capabilities.instructions:
            self._complete_at(tick + 1, Outcome.UNSUPPORTED_REQUEST)
        elif qubit != ION:
            self._complete_at(tick + 1, Outcome.INVALID_QUBIT)
        elif operation is None or instruction.halvings:
            self._complete_at(tick + 1, Outcome.UNSUPPORTED_REQUEST)
        elif operation is IonOperation.INITIALISE:
            done = tick + self.timing.initialise_ticks
            self._hold((0.0, 0.0, 1 - 2 * self.noise.preparation_error), done)
            self._complete_at(done, Outcome.SUCCESS_ZERO)
        elif operation is IonOperation.MEASURE:
            self._measure(tick)
        else:
            done = tick + self._ticks[operation]
            kept = self._kept
            x, y, z = TURNS[operation](*self._decayed(tick))
            self._hold((kept * x, kept * y, kept * z), done)
            self._complete_at(done, Outcome.SUCCESS_ZERO)

    def _measure(self, tick: int) -> None:
        done = tick + self.timing.measure_ticks
        _, _, z = self._decayed(tick)
        dark = self._random() >= (1 + z) / 2
        wrong = self._bright_when_dark if dark else self._dark_when_bright
        reported_dark = dark is not (self._random() < wrong)
        self._hold((0.0, 0.0, -1.0 if dark else 1.0), tick)
        self._complete_at(done, Outcome.SUCCESS_ONE if reported_dark else Outcome.SUCCESS_ZERO)

    # --- physics ------------------------------------------------------------------------

    def _hold(self, bloch: Bloch, tick: int) -> None:
        """The state at a tick."""
        self._bloch = bloch
        self._decayed_to = tick

    def _decayed(self, tick: int) -> Bloch:
        """The state at a tick, if nothing is done until then."""
        x, y, z = self._bloch
        waited_ns = (tick - self._decayed_to) * self.timing.tick_ns
        if waited_ns <= 0:
            return self._bloch
        coherence = self.noise.coherence_factor(waited_ns)
        return coherence * x, coherence * y, 1 - (1 - z) * self.noise.dark_survival(waited_ns)
