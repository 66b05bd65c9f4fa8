"""Nodes in virtual time: a kernel, its device and its CNPU, joined to the others of a network.

All systems in virtual time are put together here, whatever their devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from qnodeos.api.netqasm import Flavour
from qnodeos.assembly.common import HOST_TRACE_SHARE, HOST_TRACE_UNIT_NS, below, require_known
from qnodeos.cnpu.host import NetworkDirectory
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.cnpu.message_board import MessageBoard
from qnodeos.cnpu.virtual import VirtualCnpu
from qnodeos.limits import Limits
from qnodeos.qdevice.protocols import QDriver, SimulatedQDevice
from qnodeos.qnpu.kernel import Kernel
from qnodeos.qnpu.kernel_config import KernelConfig
from qnodeos.qnpu.scheduler import POLICIES
from qnodeos.trace.recorder import TraceRecorder
from sim.clock import VirtualClock
from sim.network import PeerNetwork, VirtualNetwork
from sim.node import VirtualNode

_US_IN_NS = 1_000


@dataclass(frozen=True)
class NodeHandles:
    """What can be looked at in a node.

    Attributes:
        qnpu_trace: events of the QNPU; unit: the tick.
        host_trace: events of the CNPU; unit: 1 us.
    """

    node: VirtualNode
    device: SimulatedQDevice
    cnpu: VirtualCnpu
    qnpu_trace: TraceRecorder
    host_trace: TraceRecorder


class NodeBuilder:
    """Makes the nodes of one network.

    Args:
        names: of all nodes; their place is their node id.
        profile: latencies of the software.
        seed: of all randomness; every component draws from a stream of its own.
        trace_capacity: events kept per recorder of a QNPU.
        scheduler: scheduling policy of the QNPUs, one of `POLICIES`.
        limits: of the QNPUs.

    Attributes:
        clock: of the network.
        peers: carries the messages between the QNPUs.
        handles: the nodes made so far, by name.

    Raises:
        ConfigurationError: there is no such policy.
    """

    def __init__(
        self,
        names: Sequence[str],
        profile: LatencyProfile,
        seed: int | str,
        *,
        trace_capacity: int,
        scheduler: str,
        limits: Limits,
    ) -> None:
        require_known("scheduler", scheduler, POLICIES)
        self._profile = profile
        self._seed = seed
        self._trace_capacity = trace_capacity
        self._scheduler = scheduler
        self._limits = limits
        self._directory = NetworkDirectory(
            {name: number for number, name in enumerate(names)}, {name: name for name in names}
        )
        self._board = MessageBoard()
        self.clock = VirtualClock()
        self.peers = PeerNetwork(self.clock, profile, self._stream("peers"))
        self.handles: dict[str, NodeHandles] = {}

    def _stream(self, purpose: str) -> Random:
        return Random(f"{self._seed}/{purpose}")

    def add(
        self,
        name: str,
        device: SimulatedQDevice,
        driver: QDriver,
        flavour: Flavour,
        peers: Mapping[int, int],
        link_fidelity: Mapping[int, float] | None = None,
    ) -> NodeHandles:
        """Make a node; its schedule and routes are the caller's to install.

        Args:
            name: one of those given.
            device: its device.
            driver: the QDriver of that.
            flavour: NetQASM that the node speaks.
            peers: node ids of its neighbours, and the device's link to each.
            link_fidelity: estimates for the pairs with them, where there are any.
        """
        number = self._directory.nodes[name]
        tick_ns = device.capabilities.tick_ns
        qnpu_trace = TraceRecorder(tick_ns, self._trace_capacity)
        host_trace = TraceRecorder(
            HOST_TRACE_UNIT_NS, max(self._trace_capacity // HOST_TRACE_SHARE, 1)
        )
        kernel = Kernel(
            KernelConfig(
                node_id=number,
                flavour=flavour,
                peers=peers,
                dispatch_ticks=self._profile.dispatch_us * _US_IN_NS // tick_ns,
                limits=self._limits,
                link_fidelity=link_fidelity or {},
            ),
            driver,
            qnpu_trace,
            partial(below, self._stream(f"{name}/kernel")),
            POLICIES[self._scheduler](),
        )
        node = VirtualNode(name, kernel, device, self.clock, self.peers.sender(number))
        self.peers.add(number, node)
        cnpu = VirtualCnpu(
            node_name=name,
            directory=self._directory,
            flavour=flavour,
            capabilities=device.capabilities,
            clock=self.clock,
            qnpu=node,
            board=self._board,
            latency=self._profile,
            rng=self._stream(f"{name}/cnpu"),
            trace=host_trace,
        )
        handles = NodeHandles(node, device, cnpu, qnpu_trace, host_trace)
        self.handles[name] = handles
        return handles

    def network(self) -> VirtualNetwork:
        """The nodes made so far, ready to run programs."""
        return VirtualNetwork(
            self.clock,
            {name: handles.node for name, handles in self.handles.items()},
            {name: handles.cnpu for name, handles in self.handles.items()},
        )
