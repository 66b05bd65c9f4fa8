"""What programs are called with: parameters, and whether arguments fit them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from qnodeos.errors import ConfigurationError


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function; none if it does not say."""
    try:
        return inspect.signature(function).parameters
    except ValueError:
        return {}


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of this name, or takes any."""
    return name in (parameters := parameters_of(function)) or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )


def check_inputs(name: str, function: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
    """See that a program can be called with its inputs.

    Raises:
        ConfigurationError: it cannot, and why.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a function without a signature takes what it takes
    try:
        signature.bind(**inputs)
    except TypeError as error:
        title = getattr(function, "__name__", name)
        raise ConfigurationError(
            f"program {name} cannot start with these inputs: {error}. It is {title}{signature}; "
            "give inputs with --input NAME=VALUE or --inputs FILE"
        ) from None
