"""The platforms: what the operating system has to be told about the hardware of a node.

A node file names one (`platform: nv`). Everything else of a platform stands in its driver;
docs/new-platform.md shows how another is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from drivers.generic import GENERIC_CAPABILITIES, GenericDriver
from drivers.nv import NV_CAPABILITIES, NVDriver
from drivers.trapped_ion import ION_CAPABILITIES, TrappedIonDriver
from qnodeos.api.netqasm import Flavour
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qdevice.protocols import QDriver


@dataclass(frozen=True)
class Platform:
    """A kind of hardware.

    Attributes:
        name: as in node files.
        make_driver: the QDriver for a device.
        capabilities: what its devices can do.
        flavour: NetQASM that its nodes speak.
        optional: instructions that a device may lack; its driver refuses what needs them.
    """

    name: str
    make_driver: Callable[[Capabilities], QDriver]
    capabilities: Capabilities
    flavour: Flavour
    optional: frozenset[Opcode] = frozenset()

    def driver_for(self, device: Capabilities) -> QDriver:
        """The QDriver for a device that says what it can do.

        Raises:
            ConfigurationError: it is not a device of this platform: it lacks instructions that
                the driver asks for, or has links where there are none.
        """
        expected = self.capabilities
        missing = expected.instructions - self.optional - device.instructions
        if missing:
            raise ConfigurationError(
                f"platform is {self.name}, whose driver asks for {_names(expected.instructions)}, "
                f"and the device ({device.name}) has no {_names(missing)}; {_REMEDY}"
            )
        if device.links and not expected.links:
            raise ConfigurationError(
                f"platform is {self.name}, whose nodes have no link to a neighbour, and the device "
                f"({device.name}) has {device.links}; {_REMEDY}"
            )
        return self.make_driver(device)


_REMEDY: Final = "name the platform of the device in the node file, or correct its device"

PLATFORMS: Final[Mapping[str, Platform]] = MappingProxyType(
    {
        platform.name: platform
        for platform in (
            Platform("nv", NVDriver, NV_CAPABILITIES, Flavour.NV),
            Platform("ion", TrappedIonDriver, ION_CAPABILITIES, Flavour.VANILLA),
            Platform(
                "generic",
                GenericDriver,
                GENERIC_CAPABILITIES,
                Flavour.VANILLA,
                optional=GENERIC_CAPABILITIES.instructions - {Opcode.INI, Opcode.SQG, Opcode.MSR},
            ),
        )
    }
)
"""By name."""


def platform_of(name: str) -> Platform:
    """A platform by the name that stands in a node file.

    Raises:
        ConfigurationError: there is no such platform.
    """
    try:
        return PLATFORMS[name]
    except KeyError:
        raise ConfigurationError(
            f"there is no platform {name!r}; choose one of: {', '.join(PLATFORMS)}",
            field="platform",
        ) from None


def _names(instructions: frozenset[Opcode]) -> str:
    return ", ".join(opcode.name for opcode in sorted(instructions))
