"""Putting a system together: from a configuration to nodes that run programs.

The one place where drivers, instruments and the simulated laboratory meet the operating
system.

==========================  ===============================================================
`assembly.network`          two NV nodes and the link between them, in virtual time
`assembly.description`      networks of many nodes, as data
`assembly.netqasm_network`  the same from NetQASM's network.yaml
`assembly.many_nodes`       networks of many nodes, in virtual time
`assembly.registers`        the devices of such networks, alone
`assembly.ion`              a trapped-ion node, in virtual time
`assembly.platforms`        the platforms by name: driver, capabilities, NetQASM flavour
`assembly.nodes`            nodes in virtual time: what the systems above share
`assembly.service`          the QNPU service of one node
`assembly.common`           depths of the simulation and latency profiles
==========================  ===============================================================

What is imported here is what most users of the package need.
"""

from __future__ import annotations

from qnodeos.assembly.common import BACKENDS, PROFILES, TRACE_CAPACITY, load_profile
from qnodeos.assembly.description import (
    GenericDevice,
    LinkDescription,
    NetworkDescription,
    NodeDescription,
    NVDevice,
    load_description,
)
from qnodeos.assembly.many_nodes import NetworkSystem, build_network
from qnodeos.assembly.netqasm_network import read_netqasm_network
from qnodeos.assembly.network import (
    LINKS,
    ROLES,
    ExperimentDevice,
    ExperimentNode,
    NetworkConfig,
    NodeConfig,
    ScheduleConfig,
    TwoDevices,
    TwoNodeSystem,
    build_devices,
    build_two_nodes,
    instrument_spec,
    load_network,
)
from qnodeos.assembly.nodes import NodeHandles
from qnodeos.assembly.platforms import PLATFORMS, Platform
from qnodeos.assembly.service import build_service

__all__ = [
    "BACKENDS",
    "LINKS",
    "PLATFORMS",
    "PROFILES",
    "ROLES",
    "TRACE_CAPACITY",
    "ExperimentDevice",
    "ExperimentNode",
    "GenericDevice",
    "LinkDescription",
    "NVDevice",
    "NetworkConfig",
    "NetworkDescription",
    "NetworkSystem",
    "NodeConfig",
    "NodeDescription",
    "NodeHandles",
    "Platform",
    "ScheduleConfig",
    "TwoDevices",
    "TwoNodeSystem",
    "build_devices",
    "build_network",
    "build_service",
    "build_two_nodes",
    "instrument_spec",
    "load_description",
    "load_network",
    "load_profile",
    "read_netqasm_network",
]
