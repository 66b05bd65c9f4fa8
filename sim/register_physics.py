"""What the qubits of a simulated node do and how long it takes, as numbers with their sources.

A node has communication qubits, which can be entangled with a neighbour, and memory qubits.
Each kind has its errors and durations (`QubitPhysics`), and gates on two qubits have theirs
(`RegisterPhysics`). The model: initialisation may fail, rotations and gates on two qubits are
followed by depolarising noise, readouts err with different probabilities for |0> and |1>, and
qubits decay while they wait.

Sources: "published" is Delle Donne et al., Nature 639, 321 (2025),
doi:10.1038/s41586-025-08704-w, with its supplement and data. What that system cannot tell about
carbon-13 memories, as it has none, is measured elsewhere, or taken from the parameters of NV
centres that come with two network simulators, or assumed:

* Abobeih et al., Nat. Commun. 9, 2552 (2018), doi:10.1038/s41467-018-04916-z
* Bradley et al., Phys. Rev. X 9, 031045 (2019), doi:10.1103/PhysRevX.9.031045
* NetSquid-NV, its parameter set of 2019 (Coopmans et al., Commun. Phys. 4, 164 (2021), appendices
  D to F of arXiv:2010.12535)
* SquidASM, the defaults of its `NVQDeviceConfig`
"""

from __future__ import annotations

import math
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qnodeos.qdevice.instructions import MAX_HALVINGS, MAX_QUBIT
from sim.noise import NS_PER_MS, NVNoise, Probability
from sim.nv_timing import Duration, NVTiming

NV_TICK_NS: Final = 10_000
"""Time between two frames of an NV node (published)."""
_TICKS_PER_MS: Final = NS_PER_MS // NV_TICK_NS


class QubitPhysics(BaseModel):
    """One kind of qubit; by default it is perfect and every operation takes one tick."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initialisation_error: Probability = Field(
        0.0, description="probability of |1> after initialisation"
    )
    gate_depolarising: Probability = Field(
        0.0,
        description="depolarising probability p of a rotation, rho -> (1-p) rho + p I/2",
    )
    readout_fidelity_0: Probability = Field(1.0, description="P(report 0) of |0>")
    readout_fidelity_1: Probability = Field(1.0, description="P(report 1) of |1>")
    coherence_time_ms: float = Field(
        math.inf, ge=1e-6, description="T2, 1/e time of the coherences; may be infinite"
    )
    coherence_exponent: float = Field(
        1.0, gt=0, le=4, description="n in exp(-(t/T2)**n) (assumed: exponential)"
    )
    relaxation_time_ms: float = Field(
        math.inf,
        ge=1e-6,
        description=(
            "T1, 1/e time of the populations, which decay to 1/2 each; may be infinite. If it is "
            "not, T2 must not exceed 2 T1 and the decay of the coherences must be exponential"
        ),
    )
    initialise_ticks: Duration = Field(1, description="reset to |0>")
    gate_ticks: Duration = Field(1, description="a rotation")
    measure_ticks: Duration = Field(1, description="a readout")

    @model_validator(mode="after")
    def _decays_to_a_state(self) -> Self:
        if math.isfinite(self.relaxation_time_ms) and (
            self.coherence_exponent != 1 or self.coherence_time_ms > 2 * self.relaxation_time_ms
        ):
            raise ValueError(
                f"T2 = {self.coherence_time_ms} ms with exponent {self.coherence_exponent} and "
                f"T1 = {self.relaxation_time_ms} ms is no possible decay; keep T2 <= 2 T1 and "
                "the exponent 1, or make T1 infinite"
            )
        return self

    def coherence_factor(self, start_ns: int, stop_ns: int) -> float:
        """What the coherences keep between two ages of a qubit, in 0..1.

        Args:
            start_ns: age at the start of the wait, counted from the creation of its state.
            stop_ns: age at its end, not before ``start_ns``.
        """
        scale = self.coherence_time_ms * NS_PER_MS
        exponent = self.coherence_exponent
        return math.exp((start_ns / scale) ** exponent - (stop_ns / scale) ** exponent)

    def population_factor(self, waited_ns: int) -> float:
        """What the difference of the populations keeps during a wait, in 0..1."""
        return math.exp(-waited_ns / (self.relaxation_time_ms * NS_PER_MS))


class RegisterPhysics(BaseModel):
    """A register of qubits; by default five perfect ones with all gates between all of them.

    Communication qubits have the addresses from 0 on, the memory qubits those after them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    communication_qubits: int = Field(
        5, ge=1, le=MAX_QUBIT + 1, description="qubits that can be entangled with a neighbour"
    )
    memory_qubits: int = Field(
        0, ge=0, le=MAX_QUBIT, description="qubits that store and are acted on only"
    )
    star: bool = Field(
        False,
        description=(
            "whether gates on two qubits join a communication qubit, which controls, and a "
            "memory qubit only, as in an NV centre; otherwise they act on every pair"
        ),
    )
    communication: QubitPhysics = Field(
        QubitPhysics(), description="errors and durations of the communication qubits"
    )
    memory: QubitPhysics = Field(
        QubitPhysics(),
        description="errors and durations of the memory qubits, which are never read out",
    )
    pair_depolarising: Probability = Field(
        0.0,
        description=(
            "depolarising probability p of a gate on two qubits and of an entanglement swap, "
            "rho -> (1-p) rho + p I/4"
        ),
    )
    move_depolarising: Probability = Field(
        0.0, description="depolarising probability of the state that is moved"
    )
    swap_depolarising: Probability = Field(
        0.0, description="depolarising probability of each of two states that are swapped"
    )
    pair_gate_ticks: Duration = Field(1, description="a gate on two qubits")
    move_ticks: Duration = Field(1, description="moving a state to another qubit")
    swap_ticks: Duration = Field(1, description="swapping the states of two qubits")
    entanglement_swap_ticks: Duration = Field(
        1, description="a Bell measurement; two swaps longer between two memories of a star"
    )
    tick_ns: int = Field(NV_TICK_NS, ge=1, le=1_000_000_000, description="time between two frames")
    angle_halvings: int = Field(
        0,
        ge=0,
        le=MAX_HALVINGS,
        description="rotations are possible by multiples of pi/16 / 2**angle_halvings",
    )

    @model_validator(mode="after")
    def _has_addresses(self) -> Self:
        if self.qubits > MAX_QUBIT + 1:
            raise ValueError(
                f"{self.qubits} qubits; a device has {MAX_QUBIT + 1} addresses, so use fewer"
            )
        if self.star and self.communication_qubits != 1:
            raise ValueError(
                f"a star has one communication qubit in its middle, not {self.communication_qubits}"
            )
        return self

    @property
    def qubits(self) -> int:
        """Qubits of both kinds."""
        return self.communication_qubits + self.memory_qubits

    def of(self, address: int) -> QubitPhysics:
        """Errors and durations of the qubit with a physical address."""
        return self.communication if address < self.communication_qubits else self.memory

    @classmethod
    def generic(cls, qubits: int = 5) -> RegisterPhysics:
        """Perfect qubits, each of which can be entangled; every operation takes a tick of 10 us.

        The finest angle a frame can say is possible. Assumed throughout: this is a node for
        programs rather than for a piece of hardware.
        """
        return cls(communication_qubits=qubits, angle_halvings=MAX_HALVINGS)

    @classmethod
    def nv(cls, memories: int = 4) -> RegisterPhysics:
        """An NV centre: the electron spin and carbon-13 memories, with realistic noise.

        The electron is that of `NVNoise` and `NVTiming`, without their decoupling blocks and
        ionisation; T1 = 1 h (Abobeih et al.). Carbons: initialised with F = 0.997 (Bradley et
        al.) in 310 us (SquidASM), T2 = 1 s, T1 = 10 h (NetSquid-NV), and an electron-carbon gate
        with depolarising probability 0.02 (NetSquid-NV) in 500 us (SquidASM). A rotation of a
        carbon takes 500 us (SquidASM) and depolarises like that gate (assumed). Two such gates
        make a move and three a swap, from which follow their durations and noise (derived,
        without the rotations in between). An entanglement swap is two gates and two readouts of
        the electron (derived); of the noise only one gate's is taken (assumed). That attempts to
        entangle the electron, its readout, and the initialisation of other carbons dephase a
        carbon is not modelled.
        """
        electron, timing = NVNoise(), NVTiming()
        gate_ticks = _TICKS_PER_MS // 2
        gate_error = 0.02
        readout_ticks = timing.tick_after(timing.measure_ns)
        return cls(
            communication_qubits=1,
            memory_qubits=memories,
            star=True,
            communication=QubitPhysics(
                initialisation_error=electron.initialisation_error,
                gate_depolarising=electron.gate_depolarising,
                readout_fidelity_0=electron.readout_fidelity_0,
                readout_fidelity_1=electron.readout_fidelity_1,
                coherence_time_ms=electron.coherence_time_ms,
                coherence_exponent=electron.coherence_exponent,
                relaxation_time_ms=3.6e6,
                initialise_ticks=timing.initialise_ticks,
                gate_ticks=timing.gate_ticks,
                measure_ticks=readout_ticks,
            ),
            memory=QubitPhysics(
                initialisation_error=0.003,
                gate_depolarising=gate_error,
                coherence_time_ms=1_000,
                relaxation_time_ms=3.6e7,
                initialise_ticks=31,
                gate_ticks=gate_ticks,
            ),
            pair_depolarising=gate_error,
            move_depolarising=1 - (1 - gate_error) ** 2,
            swap_depolarising=1 - (1 - gate_error) ** 3,
            pair_gate_ticks=gate_ticks,
            move_ticks=2 * gate_ticks,
            swap_ticks=3 * gate_ticks,
            entanglement_swap_ticks=2 * gate_ticks + 2 * readout_ticks,
            tick_ns=timing.tick_ns,
        )

    @classmethod
    def nv_noiseless(cls, memories: int = 4) -> RegisterPhysics:
        """An NV centre without noise, whose operations take a tick of 10 us each.

        The finest angle a frame can say is possible, so that programs with arbitrary angles
        run (assumed: the published hardware rotates by multiples of pi/16).
        """
        return cls(
            communication_qubits=1,
            memory_qubits=memories,
            star=True,
            angle_halvings=MAX_HALVINGS,
        )
