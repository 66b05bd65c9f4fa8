"""The two nodes of the experiments under an application: NV centres with one qubit each.

They can be simulated as one piece or instrument by instrument; networks of other devices only
as one piece (`qnodeos.applications.networks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Any, Final

from qnodeos.applications.application import Application
from qnodeos.assembly import ROLES, NetworkConfig, build_two_nodes
from qnodeos.assembly.nodes import NodeHandles
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.errors import ConfigurationError
from sim.network import VirtualNetwork

LINK: Final = "fast"
"""Preset of their link: the noise of the published one, and attempts back to back."""


class TwoNodes:
    """Both nodes, ready to run programs; use it as a context manager.

    Args:
        profile: latencies of the software.
        seed: of all randomness.
        backend: depth of the simulation, one of `qnodeos.assembly.BACKENDS`.
        trace_capacity: events kept per recorder.

    Attributes:
        network: runs programs.
        nodes: by name, in the order of their ids.

    Raises:
        ConfigurationError: there is no such backend, or its packages are missing.
        DeviceError: an instrument cannot be used.
    """

    def __init__(
        self, profile: LatencyProfile, seed: int | str, backend: str, trace_capacity: int
    ) -> None:
        config = NetworkConfig.preset(LINK)
        self._system = build_two_nodes(config, profile, seed, trace_capacity, backend)
        self.network: VirtualNetwork = self._system.network
        self.nodes: Mapping[str, NodeHandles] = MappingProxyType(
            {name: getattr(self._system, name) for name in ROLES}
        )

    def __enter__(self) -> TwoNodes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._system.close()


def on_two_nodes(
    application: Application, post_function: Callable[[Any], object] | None = None
) -> Application:
    """The same application, with its first role at the client and its second at the server.

    Args:
        application: of two roles.
        post_function: what is to be done afterwards, instead of the application's own.

    Raises:
        ConfigurationError: it has not two roles on two nodes, or something is to be done
            afterwards that looks at states.
    """
    roles = list(application.programs)
    if len(roles) != len(ROLES) or len(application.nodes) != len(ROLES):
        raise ConfigurationError(
            f"{application.name} has the roles {', '.join(roles)} on {len(application.nodes)} "
            "nodes; a backend is for two nodes, so it needs two roles, on a node each"
        )
    if post_function is not None or application.post_function is not None:
        raise ConfigurationError(
            f"{application.name} has a post function, which looks at states, which cannot be done "
            "with a backend"
        )
    return replace(application, allocation=dict(zip(roles, ROLES, strict=True)))
