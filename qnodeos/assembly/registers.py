"""Simulated nodes with registers of qubits, and the links between them: devices only.

Networks in virtual time (`assembly.many_nodes`) and the laboratory in real time
(`qnodeos lab`) have the same devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from qnodeos.assembly.description import DeviceNetwork
from qnodeos.service.schedule_plan import LinkName
from sim.link import EntanglementLink
from sim.register_device import RegisterDevice


@dataclass(frozen=True)
class RegisterDevices:
    """The devices of a network.

    Attributes:
        devices: by the name of their node.
        links: by the names of their two nodes, as in the description.
    """

    devices: Mapping[str, RegisterDevice]
    links: Mapping[LinkName, EntanglementLink]


def build_registers(network: DeviceNetwork, seed: int | str) -> RegisterDevices:
    """Devices that share the links of a network.

    Args:
        network: nodes and links; a node's `neighbours` number the links of its device.
        seed: of all randomness; every device and link draws from a stream of its own.
    """
    links = {
        link.between: EntanglementLink(
            link.link, Random(f"{seed}/link {'-'.join(link.between)}"), network.tick_ns
        )
        for link in network.links
    }
    devices = {
        name: RegisterDevice(
            node.device.register_physics(),
            [links[link.between] for link in network.neighbours(name).values()],
            Random(f"{seed}/{name}/device"),
            name,
        )
        for name, node in network.nodes.items()
    }
    return RegisterDevices(devices, links)
