"""Running unmodified NetQASM programs.

Programs import `NetQASMConnection` and `Socket` from `netqasm.sdk.external`, a module that
decides at import time which simulator those names mean. `install` puts a module of ours
there first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any, Final, NoReturn, Protocol

from qnodeos.errors import ProgramError

NAME: Final = "netqasm.sdk.external"


class Simulation(Protocol):
    """What simulated programs can see of the simulation they run in."""

    def qubit_state(self, connection: Any, virtual: int, *, is_reduced: bool) -> Any:
        """Density matrix of a qubit of a program.

        Args:
            connection: the program's `QNodeOSConnection`.
            virtual: the qubit's address there.
            is_reduced: whether only of this qubit, or of all it may be entangled with.

        Raises:
            ProgramError: the qubit is none of the program's.
        """
        ...

    def on_close(self, connection: Any) -> None:
        """A connection has done all its work, and still has its qubits."""
        ...


simulation: ContextVar[Simulation] = ContextVar("simulation")
"""The simulation that the programs run in; set by whoever simulates them."""


def install(others: Mapping[str, Any] | None = None) -> None:
    """Make `netqasm.sdk.external` mean this system. Call it before importing a program.

    Args:
        others: further names to be found there, with what they mean.
    """
    # netqasm reads this when its other modules ask which simulator is in use; "debug" is
    # the only choice that needs nothing else installed.
    os.environ.setdefault("NETQASM_SIMULATOR", "debug")
    module = build_module()
    for name, meaning in (others or {}).items():
        setattr(module, name, meaning)
    put(module)


def build_module(start: Callable[..., Any] | None = None) -> ModuleType:
    """What `netqasm.sdk.external` is to mean.

    Args:
        start: what scripts get as `simulate_application`; without, they cannot start themselves.
    """
    from qnodeos.cnpu.sockets import AppBroadcastChannel, AppSocket

    module = ModuleType(NAME, "NetQASM's names for connections and sockets, as qnodeos's.")
    names = {
        "NetQASMConnection": _connection_class(),
        "Socket": AppSocket,
        "BroadcastChannel": AppBroadcastChannel,
        "get_qubit_state": get_qubit_state,
        "simulate_application": start if start is not None else _no_simulation,
    }
    for name, meaning in names.items():
        setattr(module, name, meaning)
    return module


def put(module: ModuleType) -> None:
    """Let imports of `netqasm.sdk.external` find this module."""
    import netqasm.sdk

    sys.modules[NAME] = module
    netqasm.sdk.external = module


@cache
def _connection_class() -> type:
    # Not imported before the environment says which simulator is meant.
    from qnodeos.cnpu.backend import QNodeOSConnection

    class NetQASMConnection(QNodeOSConnection):
        """The SDK's connection; tells a simulation when it is about to give its qubits back."""

        def _save_log_subroutines(self) -> None:
            """Nothing: subroutines are sent as bytes, and not kept as the SDK's objects."""

        def _signal_stop(self, clear_app: bool = True, stop_backend: bool = True) -> None:
            observer = simulation.get(None)
            if clear_app and observer is not None:
                observer.on_close(self)
            super()._signal_stop(clear_app, stop_backend)

    return NetQASMConnection


def get_qubit_state(qubit: Any, reduced_dm: bool = True) -> Any:
    """The state of a qubit, which only a simulation can tell.

    What was built for the qubit's connection and not flushed yet is flushed first.

    Args:
        qubit: a qubit of the SDK.
        reduced_dm: whether of this qubit alone; else of all it may be entangled with, at
            whatever node: first the qubit itself, then the others in order of node and of
            physical address.

    Returns:
        The density matrix, shape (2**n, 2**n); the first qubit is the most significant.

    Raises:
        ProgramError: this is no simulation, or the qubit is not there any more.
    """
    observer = simulation.get(None)
    if observer is None:
        raise ProgramError("the state of a qubit cannot be looked at; measure it")
    connection = qubit.connection
    connection.flush()
    connection.block()
    return observer.qubit_state(connection, qubit.qubit_id, is_reduced=reduced_dm)


def _no_simulation(*_: Any, **__: Any) -> NoReturn:
    """Stand-in for what scripts import to start themselves.

    Raises:
        ProgramError: always; here the CNPU starts programs.
    """
    raise ProgramError(
        "a program cannot start a simulation from inside: give its functions to "
        "`qnodeos.applications` or to a `sim.network.VirtualNetwork`, or start a script that "
        "simulates itself with `qnodeos run --sdk-script`"
    )
