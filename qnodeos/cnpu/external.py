"""Running unmodified NetQASM programs.

Programs import `NetQASMConnection` and `Socket` from `netqasm.sdk.external`, a module that
decides at import time which simulator those names mean. `install` puts a module of ours
there first.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any, NoReturn

from qnodeos.errors import ProgramError

_NAME = "netqasm.sdk.external"


def install() -> None:
    """Make `netqasm.sdk.external` mean this system. Call it before importing a program."""
    # netqasm reads this when its other modules ask which simulator is in use; "debug" is
    # the only choice that needs nothing else installed.
    os.environ.setdefault("NETQASM_SIMULATOR", "debug")

    import netqasm.sdk

    from qnodeos.cnpu.backend import QNodeOSConnection
    from qnodeos.cnpu.sockets import AppBroadcastChannel, AppSocket

    module = ModuleType(_NAME, "NetQASM's names for connections and sockets, as qnodeos's.")
    module.NetQASMConnection = QNodeOSConnection  # type: ignore[attr-defined]
    module.Socket = AppSocket  # type: ignore[attr-defined]
    module.BroadcastChannel = AppBroadcastChannel  # type: ignore[attr-defined]
    module.get_qubit_state = _get_qubit_state  # type: ignore[attr-defined]
    module.simulate_application = _simulate_application  # type: ignore[attr-defined]
    sys.modules[_NAME] = module
    netqasm.sdk.external = module


def _simulate_application(*_: Any, **__: Any) -> NoReturn:
    """Stand-in for what scripts import to start themselves.

    Raises:
        ProgramError: always; here the CNPU starts programs.
    """
    raise ProgramError(
        "a program cannot start a simulation from inside: give its functions to a "
        "`sim.network.VirtualNetwork` (see `qnodeos.assembly`), or start it with `qnodeos run`"
    )


def _get_qubit_state(*_: Any, **__: Any) -> NoReturn:
    """Stand-in for what programs import to look into a simulator.

    Raises:
        ProgramError: always; a node can only measure.
    """
    raise ProgramError("the state of a qubit cannot be looked at on a node: measure it")
