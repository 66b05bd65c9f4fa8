"""A bench for whole systems: run programs on two nodes, look at what they left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from qnodeos.assembly import NetworkConfig, NodeConfig, TwoNodeSystem, build_two_nodes
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.trace.events import Event
from qnodeos.trace.recorder import TraceRecorder
from sim.entangled_state import PerfectProtocol
from sim.link import LinkParameters
from sim.network import ProgramSpec
from sim.noise import NVNoise

Z_LIMIT: Final = 4.5
"""Statistical tests fail by chance with a probability of 7e-6; the seeds are fixed anyway."""

ZERO: Final = LatencyProfile(name="zero")
CERTAIN: Final = NetworkConfig(
    client=NodeConfig(noise=NVNoise.noiseless()),
    server=NodeConfig(noise=NVNoise.noiseless()),
    link=LinkParameters(attempts_per_batch=500, protocol=PerfectProtocol(success_probability=0.02)),
)
"""Perfect nodes, and exact Bell states in nearly every batch: little to simulate."""

_TRACE_CAPACITY: Final = 1 << 16

Program = Callable[..., Any]


def build(
    config: NetworkConfig = CERTAIN, profile: LatencyProfile = ZERO, seed: int | str = 1
) -> TwoNodeSystem:
    """Two nodes with short traces."""
    return build_two_nodes(config, profile, seed, trace_capacity=_TRACE_CAPACITY)


def run(system: TwoNodeSystem, **programs: Program) -> dict[str, Any]:
    """Run programs to their end; returns what each returned, by name.

    Args:
        system: where.
        programs: functions by name. The part of the name before the first underscore says
            on which node (``client``, ``server_second``).
    """
    specs = [ProgramSpec(name.split("_")[0], name, entry, {}) for name, entry in programs.items()]
    return dict(zip(programs, system.network.run(specs), strict=True))


def assert_nothing_left(system: TwoNodeSystem) -> None:
    """Every qubit is free, and no process, socket, request or reply is left at any node."""
    for handles in (system.client, system.server):
        kernel = handles.node.kernel
        assert kernel.qmmu.free_qubits() == [0], f"{handles.node.name} has no free qubit"
        assert not kernel.processes
        assert not kernel.host_outbox
        assert not kernel.peer_outbox
        for peer, link in kernel.link_layer.links.items():
            assert not link.queue
            assert not link.offers
            assert not link.announced
            assert not [n for n in range(33) if kernel.entanglement.socket(peer, n)]


def details(trace: TraceRecorder, event: Event) -> list[int]:
    """The details of every occurrence of one event, in order."""
    columns = trace.columns()
    values: list[int] = columns["detail"][columns["event"] == event].tolist()
    return values


def event_names(trace: TraceRecorder) -> list[str]:
    """The names of all events, in order."""
    return [Event(event).name for event in np.asarray(trace.columns()["event"])]


def rotate(vector: np.ndarray, axis: int, steps: int) -> np.ndarray:
    """A Bloch vector turned about X (0) or Y (1) by a multiple of pi/16."""
    angle = steps * math.pi / 16
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turned = vector.copy()
    turned[first] = math.cos(angle) * vector[first] - math.sin(angle) * vector[second]
    turned[second] = math.sin(angle) * vector[first] + math.cos(angle) * vector[second]
    return turned
