"""Opens VISA resources, real ones and those of pyvisa-sim."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import pyvisa
from pyvisa.resources import MessageBasedResource
from pyvisa.rname import InvalidResourceName, to_canonical_name

from instruments.errors import InstrumentUnavailable

SIMULATED_SOURCES: Final = "visa/sgs100a.yaml"
"""Definition of the simulated microwave sources, in this package."""


def open_resource(address: str, simulation_file: str | None = None) -> MessageBasedResource:
    """A VISA resource that messages can be sent to.

    Sessions on one simulated address share the instrument's state, which lives as long as the
    process, or until QCoDeS closes the last instrument of the same file.

    Args:
        address: of the resource, such as "TCPIP::192.168.1.5::INSTR".
        simulation_file: definition of simulated instruments, a file of this package; None for
            hardware.

    Raises:
        InstrumentUnavailable: there is no VISA library, or no such resource.
    """
    try:
        manager = _manager(simulation_file)
        # pyvisa-sim 0.7.1 opens an address it does not know, and answers nothing there.
        if simulation_file is not None and to_canonical_name(address) not in _known(manager):
            raise InstrumentUnavailable(
                f"no simulated instrument at {address}; there are {', '.join(_known(manager))}"
            )
        resource = manager.open_resource(address)
    except (pyvisa.VisaIOError, OSError, ValueError, InvalidResourceName) as error:
        raise InstrumentUnavailable(
            f"nothing can be opened at {address}: {error} Check the instrument's power, its cable "
            "and the address, and that a VISA library is installed"
        ) from error
    if not isinstance(resource, MessageBasedResource):
        resource.close()
        raise InstrumentUnavailable(f"{address} takes no messages; correct the address")
    return resource


def _manager(simulation_file: str | None) -> pyvisa.ResourceManager:
    if simulation_file is None:
        return pyvisa.ResourceManager()
    return pyvisa.ResourceManager(f"{files('instruments') / simulation_file}@sim")


def _known(manager: pyvisa.ResourceManager) -> tuple[str, ...]:
    return manager.list_resources("?*")
