"""Networks of many nodes in virtual time, put together from a `NetworkDescription`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random

from qnodeos.assembly.common import TRACE_CAPACITY
from qnodeos.assembly.description import NetworkDescription
from qnodeos.assembly.nodes import NodeBuilder, NodeHandles
from qnodeos.assembly.platforms import PLATFORMS
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.limits import Limits
from sim.link import EntanglementLink
from sim.network import PeerNetwork, VirtualNetwork
from sim.register_device import RegisterDevice

LinkName = tuple[str, str]


@dataclass(frozen=True)
class NetworkSystem:
    """A network, ready to run programs. Close it, or use it as a context manager.

    Attributes:
        description: what it was made from.
        network: runs programs.
        nodes: by name.
        links: by the names of their two nodes, as in the description.
    """

    description: NetworkDescription
    network: VirtualNetwork
    nodes: Mapping[str, NodeHandles]
    links: Mapping[LinkName, EntanglementLink]
    peers: PeerNetwork
    cleanup: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Free what needs freeing; more than once does no harm."""
        self.cleanup.close()

    def __enter__(self) -> NetworkSystem:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def build_network(
    description: NetworkDescription,
    profile: LatencyProfile,
    seed: int | str,
    *,
    scheduler: str = "fcfs",
    limits: Limits = Limits(),
    trace_capacity: int = TRACE_CAPACITY,
) -> NetworkSystem:
    """A network of many nodes in virtual time.

    Args:
        description: nodes, links and time bins.
        profile: latencies of the software.
        seed: of all randomness; every component draws from a stream of its own.
        scheduler: scheduling policy of the QNPUs, one of `POLICIES`.
        limits: of the QNPUs.
        trace_capacity: events kept per recorder.

    Raises:
        ConfigurationError: there is no such policy.
    """
    builder = NodeBuilder(
        list(description.nodes),
        profile,
        seed,
        trace_capacity=trace_capacity,
        scheduler=scheduler,
        limits=limits,
    )
    tick_ns = description.tick_ns
    links = {
        link.between: EntanglementLink(
            link.link, Random(f"{seed}/link {'-'.join(link.between)}"), tick_ns
        )
        for link in description.links
    }
    ids, schedules = description.node_ids, description.schedules()
    for name, node in description.nodes.items():
        neighbours = description.neighbours(name)
        device = RegisterDevice(
            node.device.register_physics(),
            [links[link.between] for link in neighbours.values()],
            Random(f"{seed}/{name}/device"),
            name,
        )
        platform = PLATFORMS[node.device.kind]
        handles = builder.add(
            name,
            device,
            platform.driver_for(device.capabilities),
            platform.flavour,
            {ids[neighbour]: number for number, neighbour in enumerate(neighbours)},
        )
        if name in schedules:
            handles.node.kernel.install_schedule(schedules[name])
    return NetworkSystem(description, builder.network(), builder.handles, links, builder.peers)
