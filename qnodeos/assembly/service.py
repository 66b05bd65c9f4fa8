"""The QNPU service of one node, put together from its node file."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from functools import partial

from qnodeos.assembly.platforms import platform_of
from qnodeos.engine import Link, LoopbackLink, ShmLink, SpidevLink, TickEngine, open_engine
from qnodeos.errors import ConfigurationError
from qnodeos.qnpu.kernel import Kernel
from qnodeos.service.listeners import close_all, open_listeners, reserve_descriptors
from qnodeos.service.loop import Loop
from qnodeos.service.node_file import NodeFile, ShmDevice, SpiDevice
from qnodeos.service.notify import ActivatedSocket, Notifier
from qnodeos.service.peer_connections import PeerConnections
from qnodeos.service.service import QnpuService


def build_service(
    node: NodeFile,
    *,
    incarnation: int,
    activated: Iterable[ActivatedSocket] = (),
    notifier: Notifier | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> QnpuService:
    """The QNPU service of a node, ready to run; close it after use.

    Args:
        node: the node.
        incarnation: number of this start; larger than those before, unless the clock was set
            back.
        activated: sockets that systemd passed; owned by the service from now on.
        notifier: to the supervisor; stays the caller's.
        say: takes lines about what changes, for people.

    Raises:
        ConfigurationError: the file does not fit this machine or the device.
        DeviceError: the device cannot be used.
    """
    platform = platform_of(node.platform)
    if node.peers and not platform.capabilities.links:
        raise ConfigurationError(
            f"{', '.join(node.peers)}: nodes of platform {platform.name} have no link to another; "
            "leave peers out, and programs run on this node alone",
            field="peers",
        )
    reserve_descriptors(node.limits)
    listeners = open_listeners(node, activated)
    try:
        service = QnpuService(
            node,
            open_engine=partial(_open_engine, node),
            make_driver=platform.driver_for,
            standard=platform.capabilities,
            flavour=platform.flavour,
            listeners=listeners,
            loop=Loop(),
            incarnation=incarnation,
            random_choice=secrets.randbelow,
            make_peers=partial(_make_peers, say) if node.peers or node.peer else None,
            notifier=notifier,
            say=say,
        )
    except BaseException:
        close_all(listeners)
        raise
    return service


def _make_peers(
    say: Callable[[str], None], service: QnpuService, kernel: Kernel, engine: TickEngine
) -> PeerConnections:
    return PeerConnections(
        service.node,
        kernel,
        loop=service.loop,
        incarnation=service.incarnation,
        tick_ns=engine.tick_ns,
        tick=service.kernel_now,
        read_tick=engine.now_tick,
        say=say,
    )


def _open_engine(node: NodeFile) -> TickEngine:
    device, realtime = node.device, node.realtime
    link: Link
    if isinstance(device, ShmDevice):
        link = ShmLink(device.path)
    elif isinstance(device, SpiDevice):
        link = SpidevLink(device.bus, device.device, device.tick_ns, device.speed_hz, device.mode)
    else:
        link = LoopbackLink(device.tick_ns)
    return open_engine(
        link,
        mode=realtime.mode,
        tick_core=realtime.tick_core,
        tick_priority=realtime.tick_priority,
        spinning_loops=node.spinning_loops,
    )
