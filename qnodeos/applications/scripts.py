"""Scripts that simulate their own applications, with NetQASM's `simulate_application`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from netqasm.runtime.application import ApplicationInstance

from qnodeos.applications.application import Application
from qnodeos.applications.networks import description_of
from qnodeos.applications.simulation import run_application
from qnodeos.errors import ConfigurationError

_HARDWARE: Final = ("generic", "nv")
"""NetQASM's names of the hardware, which are those of our devices, too."""

script_options: ContextVar[Mapping[str, Any]] = ContextVar("script_options")
"""Further options of `simulate` for what a script simulates; set by whoever runs the script."""


def simulate_application(
    app_instance: ApplicationInstance,
    num_rounds: int = 1,
    network_cfg: Any = None,
    nv_cfg: Any = None,
    log_cfg: Any = None,
    formalism: Any = None,
    use_app_config: bool = True,
    post_function: Callable[[Any], object] | None = None,
    enable_logging: bool = True,
    hardware: str = "generic",
) -> list[dict[str, Any]]:
    """Simulate an application as NetQASM's simulators do.

    Args:
        app_instance: the application.
        num_rounds: how often to run it.
        network_cfg: NetQASM's description of the network; nodes that are all linked to each
            other if not given.
        nv_cfg: not used; noise is that of the network.
        log_cfg: where logs go: a directory in ``log_dir``, or ``./log``.
        formalism: not used; all states are density matrices.
        use_app_config: whether programs get an ``app_config``.
        post_function: called with the backend after the last round.
        enable_logging: whether to write logs.
        hardware: ``generic`` or ``nv``, if no network is given.

    Returns:
        For each round what each program returned, by ``app_<party>``.

    Raises:
        ConfigurationError: the application cannot start.
        ProgramError: a program raised; that exception is the cause.
        StalledProgramsError: programs wait for what does not come.
    """
    if hardware not in _HARDWARE:
        raise ConfigurationError(
            f"there is no hardware {hardware!r}; choose one of: {', '.join(_HARDWARE)}"
        )
    log_dir = None
    if enable_logging:
        log_dir = Path(getattr(log_cfg, "log_dir", None) or "log")
    given = dict(script_options.get({}))
    network = given.pop("network", None)
    if network is None and network_cfg is not None:
        network = description_of(network_cfg)
    return run_application(
        application_of(app_instance),
        rounds=num_rounds,
        **{
            "network": network,
            "device": hardware,
            "log_dir": log_dir,
            "use_app_config": use_app_config,
            "post_function": post_function,
            **given,
        },
    )


def application_of(instance: ApplicationInstance) -> Application:
    """NetQASM's application as one of ours.

    Raises:
        ConfigurationError: a party has no program, or no node.
    """
    return Application.from_functions(
        {program.party: program.entry for program in instance.app.programs},
        allocation=instance.party_alloc,
        inputs={party: inputs or {} for party, inputs in instance.program_inputs.items()},
    )
