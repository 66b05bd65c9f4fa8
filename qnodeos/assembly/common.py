"""What the nodes of all platforms have in common when they are put together."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from random import Random
from typing import Final

from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.config.loader import parse_config
from qnodeos.errors import ConfigurationError

BACKENDS: Final = ("behavioural", "instrument")
"""Depths of the simulation: devices that answer from a model, or nodes instrument by instrument."""

PROFILES: Final = ("paper", "prepared", "zero")
"""Latency profiles that come with the package."""

TRACE_CAPACITY: Final = 1 << 19
"""Events kept per recorder."""

HOST_TRACE_UNIT_NS: Final = 1_000
HOST_TRACE_SHARE: Final = 16
"""A QNPU has so many times the events of its CNPU, about."""


def load_profile(name: str) -> LatencyProfile:
    """A latency profile of the package.

    Raises:
        ConfigurationError: there is no such profile, or its file is wrong.
    """
    require_known("latency profile", name, PROFILES)
    text = files("qnodeos.config").joinpath("profiles", f"{name}.yaml").read_text("utf-8")
    return parse_config(text, LatencyProfile, f"{name}.yaml")


def require_known(what: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that does not exist.

    Raises:
        ConfigurationError: it does not.
    """
    if name not in known:
        raise ConfigurationError(f"there is no {what} {name!r}; choose one of: {', '.join(known)}")


def below(rng: Random, bound: int) -> int:
    """A random integer from 0 to below a bound, as kernels ask for it."""
    return rng.randrange(bound)
