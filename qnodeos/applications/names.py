"""What NetQASM's own names mean to programs that are simulated."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

import netqasm.sdk.toolbox
import numpy as np
from netqasm.runtime.settings import SIMULATOR_ENV, Simulator
from numpy.typing import NDArray

from qnodeos.cnpu import external

_STATES: Final = "netqasm.sdk.toolbox.sim_states"
_MISSING: Final = object()


@contextmanager
def simulated(start: Callable[..., Any] | None = None) -> Iterator[None]:
    """Let NetQASM's names mean our simulation; afterwards they mean what they did.

    Programs ask NetQASM whether the simulator is NetSquid before they look at states. Since
    they may do so here too, they are told that it is, and `netqasm.sdk.toolbox.sim_states`,
    which would need NetSquid for the rest, is replaced.

    Args:
        start: what scripts get as `simulate_application`; without, they cannot start themselves.
    """
    simulator = os.environ.get(SIMULATOR_ENV)
    modules = {name: sys.modules.get(name) for name in (external.NAME, _STATES)}
    in_sdk = getattr(netqasm.sdk, "external", _MISSING)
    in_toolbox = getattr(netqasm.sdk.toolbox, "sim_states", _MISSING)
    os.environ[SIMULATOR_ENV] = Simulator.NETSQUID.value
    external.put(external.build_module(start))
    netqasm.sdk.toolbox.sim_states = sys.modules[_STATES] = _states_module()
    try:
        yield
    finally:
        for name, module in modules.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        _restore(netqasm.sdk, "external", in_sdk)
        _restore(netqasm.sdk.toolbox, "sim_states", in_toolbox)
        if simulator is None:
            del os.environ[SIMULATOR_ENV]
        else:
            os.environ[SIMULATOR_ENV] = simulator


def _restore(owner: ModuleType, name: str, value: object) -> None:
    if value is _MISSING:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


# --- netqasm.sdk.toolbox.sim_states ---------------------------------------------------


def _states_module() -> ModuleType:
    module = ModuleType(_STATES, "NetQASM's helpers to compare states, without NetSquid.")
    for function in (qubit_from, to_dm, get_fidelity):
        setattr(module, function.__name__, function)
    return module


def qubit_from(phi: float, theta: float) -> NDArray[np.complex128]:
    """Density matrix, shape (2, 2), of Rz(phi) Ry(theta) |0>; angles in radians."""
    half = theta / 2
    vector = np.array([np.cos(half), np.exp(1j * phi) * np.sin(half)])
    return np.outer(vector, vector.conj())


def to_dm(qubit: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The density matrix of what `qubit_from` returned."""
    return qubit


def get_fidelity(first: NDArray[np.complex128], second: NDArray[np.complex128]) -> float:
    """Fidelity of two density matrices, shape (2, 2), as NetSquid has it by default.

    That is the square root of <psi|rho|psi> if one of them is pure.
    """
    product = np.trace(first @ second).real
    mixed = np.linalg.det(first).real * np.linalg.det(second).real
    return float(np.sqrt(max(product + 2 * np.sqrt(max(mixed, 0.0)), 0.0)))
