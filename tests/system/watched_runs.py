"""Runs of applications, with what their devices did written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from qnodeos.applications import Application, load_application, simulate, simulation, states
from qnodeos.applications.conformance.catalogue import installed
from qnodeos.assembly import NetworkDescription, NVDevice, many_nodes
from qnodeos.assembly.description import quick_link
from sim import register_device
from sim.entangled_state import SinglePhotonProtocol
from sim.link import LinkParameters
from tests.system.density_replay import Key, Tape, final_state, record

QUICK = SinglePhotonProtocol(p_det_a=0.2, p_det_b=0.2)
"""The published state (F = 0.72), from photons that are lost less often: pairs come quickly."""
LINK = LinkParameters(attempt_period_ns=10_000, attempts_per_batch=10, protocol=QUICK)
PERFECT = quick_link()
"""Exact Bell states."""
READOUT = {"readout_fidelity_0": 1.0, "readout_fidelity_1": 1.0}


def nv(memories: int = 3, *, reads_perfectly: bool = False) -> NVDevice:
    """An NV centre with realistic noise; optionally with readouts that never err.

    What was reported is then what happened, so that states are known run by run.
    """
    physics = {"communication": READOUT} if reads_perfectly else {}
    return NVDevice(memories=memories, physics=physics)


def network(roles: list[str], device: Any, link: LinkParameters) -> NetworkDescription:
    """Nodes that are all linked with each other."""
    return NetworkDescription.fully_connected(roles, device, link)


@dataclass
class Run:
    """One run, and what was written down of it.

    Attributes:
        results: by role.
        tape: what the devices did.
        looked_at: qubits whose state a program looked at last, and the tick.
    """

    results: dict[str, Any]
    tape: Tape
    looked_at: tuple[list[Key], int] | None

    def expected_state(self) -> np.ndarray:
        """What the last look should have shown."""
        assert self.looked_at is not None
        return final_state(self.tape, *self.looked_at)


class Watcher:
    """Runs applications and writes down what their devices do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._tape: Tape | None = None
        self._looked_at: tuple[list[Key], int] | None = None
        build, look = many_nodes.build_network, register_device.joint_state

        def watched_build(*arguments, **options):
            system = build(*arguments, **options)
            self._tape = record(system)
            return system

        def watched_look(halves, tick):
            self._looked_at = ([(device.name, address) for device, address in halves], tick)
            return look(halves, tick)

        monkeypatch.setattr(simulation, "build_network", watched_build)
        monkeypatch.setattr(states, "joint_state", watched_look)

    def run(self, application: Application, inputs: dict[str, Any], **options: Any) -> Run:
        """Run an application once; options are those of `simulate`."""
        self._looked_at = None
        (one,) = simulate(application, inputs=inputs, **options)
        if one.problem is not None:
            raise one.problem
        assert self._tape is not None
        results = {role: one.results[f"app_{role}"] for role in application.programs}
        return Run(results, self._tape, self._looked_at)


def example(name: str) -> Application:
    """An application that comes with NetQASM."""
    return load_application(installed()[name])
