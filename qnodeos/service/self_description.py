"""What a QNPU tells of itself: to clients that connect, and in its statistics."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from qnodeos import __version__
from qnodeos.api.host_wire import PROTOCOL_VERSION, DeviceInfo, Welcome
from qnodeos.api.netqasm import Flavour
from qnodeos.engine.histogram import Histogram
from qnodeos.engine.interface import TickEngine
from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.service.limits_config import LimitsConfig
from qnodeos.service.node_file import NodeFile

_QUANTILES: Final = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def welcome_of(
    node: NodeFile, incarnation: int, flavour: Flavour, capabilities: Capabilities, limits: Limits
) -> Welcome:
    """What a client that introduces itself is told.

    Args:
        node: the node.
        incarnation: number of this start.
        flavour: NetQASM that the node speaks.
        capabilities: of the device, or of the platform as long as there is none.
        limits: of the kernel.
    """
    return Welcome(
        PROTOCOL_VERSION,
        f"qnodeos {__version__}",
        node.name,
        node.node_id,
        incarnation,
        flavour.value,
        DeviceInfo(
            capabilities.name,
            capabilities.communication_qubits,
            capabilities.memory_qubits,
            tuple(sorted(int(opcode) for opcode in capabilities.instructions)),
            capabilities.tick_ns,
            capabilities.links,
            capabilities.angle_halvings,
        ),
        limits_by_name(node.limits, limits),
        node.limits.idle_ms / 1_000,
    )


def limits_by_name(service: LimitsConfig, kernel: Limits) -> dict[str, int]:
    """All bounds, those of the kernel and those of the service."""
    return {**asdict(kernel), **service.model_dump()}


def engine_figures(engine: TickEngine) -> dict[str, Any]:
    """What an engine has counted, as plain numbers and texts."""
    figures: dict[str, Any] = {}
    for name, value in vars(engine.statistics()).items():
        if isinstance(value, Histogram):
            figures[name] = {
                **{label: value.quantile(fraction) for label, fraction in _QUANTILES.items()},
                "max": value.maximum,
                "total": value.total,
            }
        else:
            figures[name] = list(value) if isinstance(value, tuple) else value
    return figures
