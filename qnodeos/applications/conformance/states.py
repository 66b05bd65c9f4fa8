"""Criteria of applications that end with a qubit: it is in the state the protocol promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from qnodeos.applications.conformance import ideal
from qnodeos.applications.conformance.observation import Judge, Observation, Verdict, all_hold
from qnodeos.applications.conformance.statistics import distribution

FIDELITY: Final = 0.9999
"""At least this. The SDK takes angles to 1e-4 pi (`get_angle_spec_from_float`), of which a
dozen in one application, all off in the same direction, leave 0.99999."""
DISTANCE: Final = 0.01
"""At most this between density matrices: a fidelity of `FIDELITY` to a pure state allows it."""
CLEARLY_MIXED: Final = 1e-6
"""Below 1 by more than this, a purity is that of a qubit entangled with another."""


def fidelities(pairs: Sequence[tuple[Any, ideal.Vector]]) -> Verdict:
    """Whether every state is the one it should be.

    Args:
        pairs: a density matrix as nested lists or an array, and the state it should be.
    """
    if not pairs:
        return Verdict(False, "no state was seen")
    worst = min(0.0 if state is None else ideal.fidelity(state, ket) for state, ket in pairs)
    return Verdict(worst >= FIDELITY, f"{len(pairs)} runs, worst fidelity {worst:.6f}")


def sent_state(inputs: Any, unit: float) -> ideal.Vector:
    """The state that a program prepares from its inputs ``phi`` and ``theta``.

    Args:
        inputs: of the program.
        unit: of its angles, in radians.
    """
    return ideal.prepared(inputs["phi"] * unit, inputs["theta"] * unit)


def teleport(unit: float) -> Judge:
    """The receiver holds what the sender prepared, and the outcomes are evenly distributed.

    Args:
        unit: of the angles in the inputs, in radians.
    """

    def judge(runs: Sequence[Observation]) -> Verdict:
        states = [
            (run.results["receiver"]["received_state"], sent_state(run.inputs["sender"], unit))
            for run in runs
        ]
        outcomes = [2 * run.results["sender"]["m1"] + run.results["sender"]["m2"] for run in runs]
        return all_hold(
            [fidelities(states), distribution([(outcomes, [0.25] * 4)], "the sender's outcomes")]
        )

    return judge


def distributed_cnot(runs: Sequence[Observation]) -> Verdict:
    """Control and target, two nodes apart, are in the state after a CNOT."""
    return fidelities(
        [(run.results["controller"]["final_state"], _after_cnot(run, 1.0)) for run in runs]
    )


def distributed_cnot_apart(runs: Sequence[Observation]) -> Verdict:
    """Each of control and target is in the state that a CNOT leaves it in, seen alone.

    The application shows nothing but the two alone, and says whether they are entangled.
    """
    distances, told = [], []
    for run in runs:
        alone = ideal.each_alone(_after_cnot(run, math.pi))
        for role, expected in zip(("controller", "target"), alone, strict=True):
            distances.append(ideal.trace_distance(run.results[role]["final_state"], expected))
        is_entangled = ideal.purity(alone[0]) < 1 - CLEARLY_MIXED
        told.append(("are entangled" in run.results["controller"]["entangled_text"], is_entangled))
    right = sum(said == is_so for said, is_so in told)
    worst = max(distances, default=1.0)
    return Verdict(
        worst <= DISTANCE and right == len(told) > 0,
        f"{len(runs)} runs, largest trace distance {worst:.2g}, "
        f"entanglement told rightly in {right} of {len(told)}",
    )


def _after_cnot(run: Observation, unit: float) -> ideal.Vector:
    return ideal.distributed_cnot(
        sent_state(run.inputs["controller"], unit), sent_state(run.inputs["target"], unit)
    )


def blind_rotation(runs: Sequence[Observation]) -> Verdict:
    """The server's last qubit is turned as the client's angles say, up to known Paulis."""
    states = []
    for run in runs:
        client, server = run.results["client"], run.results["server"]
        ket = ideal.blind_rotation(
            client["phi"],
            client["theta"],
            [s ^ r for s, r in zip(client["s"], client["r"], strict=True)],
            client["m"],
        )
        states.append((server["output_state"], ket))
    return fidelities(states)


def blind_computation(runs: Sequence[Observation]) -> Verdict:
    """The server's last qubit is computed as the client's angles say, up to known Paulis."""
    states = []
    for run in runs:
        client, server = run.results["client"], run.results["server"]
        inputs = run.inputs["client"]
        ket = ideal.blind_computation(
            inputs["alpha"] * math.pi,
            inputs["beta"] * math.pi,
            client["m1"] ^ inputs["r1"],
            inputs["r2"],
        )
        states.append((server["final_state"], ket))
    return fidelities(states)


def anonymous_transmission(runs: Sequence[Observation]) -> Verdict:
    """The receiver has the sender's state, and nobody else has anything."""
    states, choices, others = [], set(), 0
    for run in runs:
        sender = next(role for role, given in run.inputs.items() if given.get("sender"))
        receiver = next(role for role, given in run.inputs.items() if given.get("receiver"))
        choices.add((sender, receiver))
        output = run.results.get(receiver) or {}
        states.append((output.get("qubit_state"), sent_state(run.inputs[sender], 1.0)))
        others += sum(
            result is not None for role, result in run.results.items() if role != receiver
        )
    verdict = fidelities(states)
    return Verdict(
        verdict.passed and not others,
        f"{verdict.detail}, {len(choices)} choices of sender and receiver",
    )
