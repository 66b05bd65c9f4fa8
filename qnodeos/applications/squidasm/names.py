"""The names that SquidASM-style programs and scripts import, meaning this system.

`install` puts modules of these names into `sys.modules`. What they do not have is refused by
name when it is imported or used, rather than found missing later.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final, NoReturn

from qnodeos.applications.names import simulated
from qnodeos.cnpu.external import install as install_netqasm
from qnodeos.errors import ProgramError

ROOTS: Final = (
    "squidasm",
    "netsquid",
    "netsquid_driver",
    "netsquid_magic",
    "netsquid_netbuilder",
    "pydynaa",
)
"""Packages whose names are taken over as a whole."""


class UnavailableNameError(ProgramError, ImportError):
    """A program uses something of the simulator that is not to be had here."""


class EventExpression:
    """What waiting methods are annotated with; there are none here."""


class QFormalism(Enum):
    """How the simulator may keep states; here it makes no difference."""

    KET = "ket"
    DM = "dm"
    STAB = "stab"
    GSLC = "gslc"


def install() -> None:
    """Make the simulator's names mean this system. Call it before importing a program."""
    install_netqasm()
    _take_out()
    contents = _contents()
    for name in contents:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            _module(".".join(parts[:length]))
    for name, values in contents.items():
        vars(sys.modules[name]).update(values)
    if not any(isinstance(finder, _Refusing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Refusing())


@contextmanager
def installed() -> Iterator[None]:
    """Make the simulator's names mean this system; afterwards they mean what they did."""
    with simulated():
        before = _take_out()
        install()
        try:
            yield
        finally:
            _take_out()
            sys.modules.update(before)
            sys.meta_path[:] = [
                finder for finder in sys.meta_path if not isinstance(finder, _Refusing)
            ]


def _take_out() -> dict[str, ModuleType]:
    """Forget all modules of the simulator's names; returns them."""
    found = [name for name in sys.modules if name.partition(".")[0] in ROOTS]
    return {name: sys.modules.pop(name) for name in found}


def _module(name: str) -> None:
    if name in sys.modules:
        return
    module = ModuleType(name, f"Stands in for {name}.")
    module.__path__ = []
    module.__getattr__ = lambda missing: _refuse(name, missing)  # type: ignore[method-assign]
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def _refuse(module: str, name: str) -> NoReturn:
    if name.startswith("__"):  # asked for by Python itself
        raise AttributeError(name)
    raise UnavailableNameError(
        f"{module}.{name} is not to be had here: SquidASM-style programs run on qnodeos, without "
        "NetSquid underneath (docs/squidasm.md lists what there is)",
        name=f"{module}.{name}",
    )


class _Refusing(MetaPathFinder):
    """Refuses the modules of the simulator that were not put into `sys.modules`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if fullname.partition(".")[0] in ROOTS and fullname not in ROOTS:
            _refuse(parent, name)
        return None


def _no_effect(*_: Any, **__: Any) -> None:
    """Accepted, and of no effect here."""


def _contents() -> Mapping[str, Mapping[str, Any]]:
    """What the modules have, by their names."""
    from qnodeos.applications.squidasm import config, networks, program, routines, simulation
    from qnodeos.applications.squidasm.connection import StackConnection
    from qnodeos.applications.squidasm.csocket import ClassicalSocket
    from qnodeos.applications.squidasm.inspection import get_qubit_state
    from qnodeos.applications.squidasm.log import LogManager
    from qnodeos.applications.squidasm.states import KETS, dm_fidelity, get_reference_state, ket2dm

    configurations = _public(config, config.Configuration) | {
        "NetworkConfig": config.StackNetworkConfig,
        "PerfectQLinkConfig": config.PerfectLinkConfig,
        "DepolariseQLinkConfig": config.DepolariseLinkConfig,
        "HeraldedDoubleClickQLinkConfig": config.HeraldedLinkConfig,
    }
    networks_by_name = {
        "create_two_node_network": networks.create_two_node_network,
        "create_complete_graph_network": networks.create_complete_graph_network,
    }
    utilities = networks_by_name | {
        "get_qubit_state": get_qubit_state,
        "get_reference_state": get_reference_state,
    }
    formalism = {
        "QFormalism": QFormalism,
        "set_qstate_formalism": _no_effect,
    }
    time = {
        "sim_time": simulation.sim_time,
        "NANOSECOND": 1,
        "MICROSECOND": 1e3,
        "MILLISECOND": 1e6,
        "SECOND": 1e9,
    }
    sockets = {"ClassicalSocket": ClassicalSocket}
    return {
        "squidasm.run.stack.run": {"run": simulation.run},
        "squidasm.run.stack.config": configurations,
        "squidasm.sim.stack.program": {
            name: getattr(program, name) for name in ("Program", "ProgramContext", "ProgramMeta")
        },
        "squidasm.sim.stack.csocket": sockets,
        "squidasm.sim.stack.connection": {"QnosConnection": StackConnection},
        "squidasm.sim.stack.common": {"LogManager": LogManager},
        "squidasm.util": utilities,
        "squidasm.util.util": utilities,
        "squidasm.util.routines": {
            name: value
            for name, value in vars(routines).items()
            if getattr(value, "__module__", None) == routines.__name__ and name[0] != "_"
        },
        "pydynaa": {"EventExpression": EventExpression},
        "netsquid": {
            "sim_time": simulation.sim_time,
            "sim_reset": _no_effect,
            "set_random_state": simulation.set_seed,
            **time,
            **formalism,
        },
        "netsquid.util.simtools": {**time, "set_random_state": simulation.set_seed},
        "netsquid.qubits": formalism,
        "netsquid.qubits.qformalism": formalism,
        "netsquid.qubits.ketstates": KETS,
        "netsquid.qubits.ketutil": {"ket2dm": ket2dm},
        "netsquid.qubits.dmutil": {"dm_fidelity": dm_fidelity},
        "netsquid_driver.classical_socket_service": sockets,
        "netsquid_magic.models.perfect": configurations,
        "netsquid_magic.models.depolarise": configurations,
        "netsquid_netbuilder.base_configs": configurations,
        "netsquid_netbuilder.logger": {"LogManager": LogManager},
        "netsquid_netbuilder.modules.clinks.default": configurations,
        "netsquid_netbuilder.modules.clinks.instant": configurations,
        "netsquid_netbuilder.modules.qdevices.generic": configurations,
        "netsquid_netbuilder.modules.qdevices.nv": configurations,
        "netsquid_netbuilder.modules.qdevices": configurations,
        "netsquid_netbuilder.modules.qlinks.perfect": configurations,
        "netsquid_netbuilder.modules.qlinks.depolarise": configurations,
        "netsquid_netbuilder.modules.qlinks": configurations,
        "netsquid_netbuilder.util.network_generation": {
            **networks_by_name,
            "create_simple_network": networks.create_two_node_network,
        },
    }


def _public(module: ModuleType, base: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    }
