"""What the programs of `qnodeos run` are given: from files, and from the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qnodeos.errors import ConfigurationError

if TYPE_CHECKING:
    from qnodeos.applications import Application
    from qnodeos.cnpu.runner import ProgramTask
    from qnodeos.service.node_file import NodeFile


def read_inputs(path: Path | None, pairs: list[str]) -> dict[str, Any]:
    """Inputs from a file, and from the command line, which wins.

    Args:
        path: YAML or JSON, None for no file. Inputs of one program may stand together under its
            name.
        pairs: NAME=VALUE or PROGRAM.NAME=VALUE.

    Returns:
        Values by NAME or PROGRAM.NAME, and mappings by PROGRAM.

    Raises:
        ConfigurationError: the file is wrong.
        typer.BadParameter: a pair is none.
    """
    from qnodeos.config.document import parse_document

    given: dict[str, Any] = {}
    if path is not None:
        try:
            data = parse_document(path.read_text("utf-8"), str(path)).data
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot be read: {error}", file=str(path)) from error
        if not isinstance(data, dict):
            raise ConfigurationError("must be inputs by name, as in `pairs: 10`", file=str(path))
        given |= data
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name.rpartition(".")[2].isidentifier()):
            raise typer.BadParameter(
                f"{pair!r} is neither NAME=VALUE nor PROGRAM.NAME=VALUE", param_hint="--input"
            )
        given[name] = parse_document(value, f"--input {name}").data
    return given


def role_inputs(application: Application, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The inputs of each role of an application; those for one role win.

    Args:
        application: the application.
        given: as `read_inputs` returns them. One without a role is for all that take it.

    Raises:
        ConfigurationError: an input is for no role.
    """
    from qnodeos.cnpu.inputs import takes

    general = {}
    own: dict[str, dict[str, Any]] = {role: {} for role in application.programs}
    for name, value in given.items():
        if name in own and isinstance(value, dict):
            own[name] = value | own[name]
        elif "." in name:
            role, _, parameter = name.rpartition(".")
            _check_program(name, role, own)
            own[role][parameter] = value
        else:
            general[name] = value
    inputs = {
        role: {name: value for name, value in general.items() if takes(entry, name)} | own[role]
        for role, entry in application.programs.items()
    }
    for name in general:
        if not any(name in each for each in inputs.values()):
            raise ConfigurationError(
                f"there is an input {name}, which no program of {application.name} takes; for one "
                "of several, name it ROLE.NAME"
            )
    return inputs


def build_tasks(
    apps: list[str],
    node: NodeFile,
    role: str | None,
    given: Mapping[str, Any],
    copies: int,
    number_input: str | None,
    logs: str,
) -> list[ProgramTask]:
    """Programs in files and modules, as often as they are to run.

    Raises:
        ConfigurationError: there is no such program, or it does not take its inputs.
    """
    from qnodeos.cli.programs import load_program
    from qnodeos.cnpu.inputs import check_inputs, takes
    from qnodeos.cnpu.runner import ProgramTask

    tasks = []
    loaded = [load_program(spec) for spec in apps]
    _check_programs((*given, number_input or ""), [name for name, _ in loaded])
    for copy in range(copies):
        for name, function in loaded:
            inputs = _inputs_of(name, given)
            if number_input is not None:
                inputs |= _inputs_of(name, {number_input: copy})
            if "app_config" not in inputs and takes(function, "app_config"):
                own = _inputs_of(name, given)
                inputs["app_config"] = _config(role or name, node, function, logs, own)
            check_inputs(name, function, inputs)
            title = name if copies == 1 else f"{name} {copy}"
            tasks.append(ProgramTask(title, function, inputs))
    return tasks


def load_on_node(directory: Path, node: NodeFile) -> Application:
    """Load an application whose programs run on this node and others.

    Args:
        directory: of the application.
        node: the node file; its ``roles`` go before ``roles.yaml``.

    Raises:
        ConfigurationError: the application is wrong, or a role is on an unknown node.
    """
    from qnodeos.applications import load_application
    from qnodeos.applications.networks import check_nodes

    application = load_application(directory, is_simulated=False).placed(node.roles)
    check_nodes(application.allocation, node.node_ids, str(directory))
    return application


def application_tasks(
    application: Application,
    node: NodeFile,
    given: Mapping[str, Any],
    copies: int,
    number_input: str | None,
    logs: str,
) -> list[ProgramTask]:
    """The programs of an application that run on a node, as often as they are to run.

    Raises:
        ConfigurationError: none of its roles is there, or one does not take its inputs.
    """
    from qnodeos.cnpu.inputs import check_inputs, takes
    from qnodeos.cnpu.runner import ProgramTask

    here = [role for role, place in application.allocation.items() if place == node.name]
    if not here:
        places = ", ".join(f"{role} on {place}" for role, place in application.allocation.items())
        raise ConfigurationError(
            f"no program of {application.name} is for node {node.name}: {places}. Say which is "
            "with roles: in the node file, or with roles.yaml"
        )
    tasks = []
    for copy in range(copies):
        numbered = {} if number_input is None else {number_input: copy}
        ready = application.with_inputs(role_inputs(application, {**given, **numbered}))
        for role in here:
            entry, own = ready.programs[role], dict(ready.inputs[role])
            inputs = dict(own)
            if takes(entry, "app_config"):
                inputs.setdefault("app_config", _config(role, node, entry, logs, own))
            check_inputs(role, entry, inputs)
            tasks.append(ProgramTask(role if copies == 1 else f"{role} {copy}", entry, inputs))
    return tasks


def _config(name: str, node: NodeFile, entry: Any, logs: str, inputs: dict[str, Any]) -> Any:
    """What NetQASM tells a program about itself."""
    from netqasm.runtime.app_config import AppConfig
    from netqasm.sdk.config import LogConfig

    log_config = LogConfig(log_subroutines_dir=logs, comm_log_dir=logs, log_dir=logs)
    return AppConfig(name, node.name, entry, log_config, inputs)


def _check_programs(names: Sequence[str], programs: list[str]) -> None:
    """See that inputs are for programs that run.

    Raises:
        ConfigurationError: one is not.
    """
    for name in names:
        program = name.rpartition(".")[0]
        if program:
            _check_program(name, program, programs)


def _check_program(name: str, program: str, programs: Iterable[str]) -> None:
    if program not in programs:
        raise ConfigurationError(
            f"input {name} is for a program {program!r}, which does not run here; there are "
            + ", ".join(sorted(set(programs)))
        )


def _inputs_of(program: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those for all programs, and those for this one, which win."""
    own = f"{program}."
    return {name: value for name, value in given.items() if "." not in name} | {
        name.removeprefix(own): value for name, value in given.items() if name.startswith(own)
    }
