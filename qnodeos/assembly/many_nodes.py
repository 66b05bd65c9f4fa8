"""Networks of many nodes in virtual time, put together from a `NetworkDescription`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from qnodeos.assembly.common import TRACE_CAPACITY
from qnodeos.assembly.description import NetworkDescription
from qnodeos.assembly.nodes import NodeBuilder, NodeHandles
from qnodeos.assembly.platforms import PLATFORMS
from qnodeos.assembly.registers import build_registers
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.errors import ConfigurationError
from qnodeos.limits import Limits
from qnodeos.qnpu.routes import Route
from qnodeos.service.schedule_plan import LinkName
from sim.link import EntanglementLink
from sim.network import PeerNetwork, VirtualNetwork


@dataclass(frozen=True)
class NetworkSystem:
    """A network, ready to run programs. Close it, or use it as a context manager.

    Attributes:
        description: what it was made from.
        network: runs programs.
        nodes: by name.
        links: by the names of their two nodes, as in the description.
        peers: connects the QNPUs.
        absent: nodes that have left, by name.
    """

    description: NetworkDescription
    network: VirtualNetwork
    nodes: Mapping[str, NodeHandles]
    links: Mapping[LinkName, EntanglementLink]
    peers: PeerNetwork
    absent: set[str] = field(default_factory=set)
    cleanup: ExitStack = field(default_factory=ExitStack)

    def remove(self, name: str) -> None:
        """A node leaves: its neighbours lose their connections to it, and routes avoid it.

        Programs that wait for pairs with it, or over it, end with an error, as do its own that
        wait for pairs with others. All others go on.

        Args:
            name: a node that is there.

        Raises:
            ConfigurationError: it is not.
        """
        self._require(name, there=True)
        self.absent.add(name)
        for neighbour in self._present_neighbours(name):
            self.peers.disconnect(self._ids[name], self._ids[neighbour])
        self._install_routes()

    def add_back(self, name: str) -> None:
        """A node that has left is back, with its connections and the routes over it.

        Args:
            name: a node that has left.

        Raises:
            ConfigurationError: it has not.
        """
        self._require(name, there=False)
        self.absent.remove(name)
        for neighbour in self._present_neighbours(name):
            self.peers.connect(self._ids[name], self._ids[neighbour])
        self._install_routes()

    def routes(self) -> dict[str, dict[str, Route]]:
        """The present route of every node to every other that it can reach, by their names."""
        names = list(self.description.nodes)
        return {
            names[node]: {names[destination]: route for destination, route in routes.items()}
            for node, routes in self._routes().items()
        }

    def _routes(self) -> dict[int, dict[int, Route]]:
        return self.description.routes(self.absent)

    def _install_routes(self) -> None:
        routes = self._routes()
        for name, handles in self.nodes.items():
            handles.node.install_routes(routes.get(self._ids[name], {}))

    @property
    def _ids(self) -> dict[str, int]:
        return self.description.node_ids

    def _present_neighbours(self, name: str) -> list[str]:
        return [each for each in self.description.neighbours(name) if each not in self.absent]

    def _require(self, name: str, *, there: bool) -> None:
        if name not in self.nodes or (name not in self.absent) is not there:
            present = [each for each in self.nodes if (each not in self.absent) is there]
            raise ConfigurationError(
                f"no node {name!r} {'is there' if there else 'has left'}; those that "
                f"{'are' if there else 'have'}: {', '.join(present) or 'none'}"
            )

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
    names = list(description.nodes)
    builder = NodeBuilder(
        names,
        profile,
        seed,
        trace_capacity=trace_capacity,
        scheduler=scheduler,
        limits=limits,
    )
    registers = build_registers(description, seed)
    ids, schedules = description.node_ids, description.schedules()
    for name, node in description.nodes.items():
        neighbours = description.neighbours(name)
        device = registers.devices[name]
        platform = PLATFORMS[node.device.kind]
        handles = builder.add(
            name,
            device,
            # A platform asks for what links need, and a node may have none.
            (platform.driver_for if neighbours else platform.make_driver)(device.capabilities),
            platform.flavour,
            {ids[neighbour]: number for number, neighbour in enumerate(neighbours)},
            {ids[neighbour]: link.estimate for neighbour, link in neighbours.items()},
        )
        if name in schedules:
            handles.node.kernel.install_schedule(schedules[name])
    system = NetworkSystem(
        description, builder.network(), builder.handles, registers.links, builder.peers
    )
    for number, routes in system._routes().items():
        builder.handles[names[number]].node.kernel.install_routes(routes)
    return system
