"""NetQASM applications: a program per role, the nodes they run on, and their inputs.

An application is a directory as NetQASM defines it: a file ``app_<role>.py`` with a function
``main`` for each role, and, if they are there, ``roles.yaml`` (the node of each role),
``<role>.yaml`` (inputs of that role's program), ``network.yaml`` (the network to simulate) and
``post_function.py`` (what to do with the simulation afterwards).
"""

from __future__ import annotations

import difflib
import importlib
import runpy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from qnodeos.applications import names
from qnodeos.applications.modules import ApplicationModules
from qnodeos.cnpu.inputs import check_inputs, parameters_of, takes
from qnodeos.config.document import parse_document
from qnodeos.config.loader import read_text
from qnodeos.errors import ConfigurationError

ENTRY: Final = "main"
CONFIG_PARAMETER: Final = "app_config"
"""The parameter in which a program gets NetQASM's `AppConfig`."""
MAX_ROLES: Final = 256
_PREFIX: Final = "app_"


@dataclass(frozen=True)
class Application:
    """An application, loaded.

    Attributes:
        name: for messages and results.
        programs: the function of each role.
        allocation: the node of each role.
        inputs: keyword arguments of each role's program.
        network: file that describes the network, None for none.
        post_function: called with the simulation after it has ended, None for none.
        directory: where it lies, None if it was made of functions.
    """

    name: str
    programs: Mapping[str, Callable[..., Any]]
    allocation: Mapping[str, str]
    inputs: Mapping[str, Mapping[str, Any]]
    network: Path | None = None
    post_function: Callable[[Any], object] | None = None
    directory: Path | None = None
    _modules: ApplicationModules | None = field(default=None, repr=False)

    @classmethod
    def from_functions(
        cls,
        programs: Mapping[str, Callable[..., Any]],
        *,
        allocation: Mapping[str, str] | None = None,
        inputs: Mapping[str, Mapping[str, Any]] | None = None,
        name: str = "application",
    ) -> Application:
        """An application of functions that are there already.

        Args:
            programs: the function of each role.
            allocation: the node of a role, for those that run on a node of another name.
            inputs: keyword arguments, for programs that take any.
            name: for messages and results.

        Raises:
            ConfigurationError: a role is allocated, or has inputs, that does not exist.
        """
        _check_number(programs, name)
        allocated = _allocated(programs, allocation or {}, f"the allocation of {name}")
        application = cls(name, dict(programs), allocated, {role: {} for role in programs})
        return application.with_inputs(inputs or {})

    @property
    def nodes(self) -> list[str]:
        """The nodes it runs on, each once."""
        return list(dict.fromkeys(self.allocation[role] for role in self.programs))

    @contextmanager
    def active(self) -> Iterator[None]:
        """While its programs run: imports find the application's own modules."""
        with nullcontext() if self._modules is None else self._modules.active():
            yield

    def placed(self, roles: Mapping[str, str]) -> Application:
        """The same with some roles on other nodes.

        Args:
            roles: the node by role; those that the application does not have are ignored.
        """
        mine = {role: node for role, node in roles.items() if role in self.programs}
        return replace(self, allocation={**self.allocation, **mine})

    def with_inputs(self, inputs: Mapping[str, Mapping[str, Any]]) -> Application:
        """The same with other inputs; what is not named stays.

        Args:
            inputs: keyword arguments by role.

        Raises:
            ConfigurationError: there is no such role.
        """
        for role in inputs:
            if role not in self.programs:
                raise ConfigurationError(
                    f"inputs are given for a role {role!r}, but {self.name} has "
                    f"{_listed(self.programs)}{_meant(role, self.programs)}"
                )
        merged = {role: {**given, **inputs.get(role, {})} for role, given in self.inputs.items()}
        return replace(self, inputs=merged)

    def check_inputs(self, *, has_config: bool = True) -> None:
        """See that every program can be called with its inputs.

        Args:
            has_config: whether programs that take ``app_config`` will get it.

        Raises:
            ConfigurationError: one cannot, and why.
        """
        for role, entry in self.programs.items():
            inputs = dict(self.inputs[role])
            if has_config and takes(entry, CONFIG_PARAMETER):
                inputs.setdefault(CONFIG_PARAMETER, None)
            check_inputs(role, entry, inputs)


def load_application(
    directory: str | Path, *, roles: Mapping[str, str] | None = None, is_simulated: bool = True
) -> Application:
    """Load an application from its directory.

    The application's own modules are seen by nothing else.

    Args:
        directory: of the application.
        roles: the node of each role, instead of what its ``roles.yaml`` says.
        is_simulated: whether it is loaded for a simulation; else `netqasm.sdk.external` must
            mean this system already (`qnodeos.cnpu.external.install`).

    Raises:
        ConfigurationError: it is no application, or one of its files is wrong.
        Exception: what its modules raise when they are imported.
    """
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        what = "is no directory" if folder.exists() else "there is no such directory"
        raise ConfigurationError(
            f"{what}; an application is a directory with a file app_ROLE.py for each role",
            file=str(folder),
        )
    files = {path.stem.removeprefix(_PREFIX): path for path in sorted(folder.glob("app_*.py"))}
    if not files:
        raise ConfigurationError(
            "is no application: it has no file app_ROLE.py (for two roles, for instance, "
            "app_alice.py and app_bob.py)",
            file=str(folder),
        )
    _check_number(files, str(folder))
    place = folder / "roles.yaml"
    if roles is None:
        given = _read_mapping(place, "the node of each role, as in `alice: delft`")
        allocation = _allocated(files, given, str(place))
    else:
        allocation = _allocated(files, roles, "the roles given")
    inputs = {
        role: _read_mapping(folder / f"{role}.yaml", "inputs by name, as in `angle: 0.5`")
        for role in files
    }
    modules = ApplicationModules(folder)
    with names.simulated() if is_simulated else nullcontext(), modules.active():
        programs = {role: _entry(path) for role, path in files.items()}
        for role, entry in programs.items():
            if inputs[role]:
                _check_names(folder / f"{role}.yaml", entry, inputs[role])
        post_function = _post_function(folder / "post_function.py")
    network = folder / "network.yaml"
    return Application(
        name=folder.resolve().name,
        programs=programs,
        allocation=allocation,
        inputs=inputs,
        network=network if network.exists() else None,
        post_function=post_function,
        directory=folder,
        _modules=modules,
    )


# --- the files ------------------------------------------------------------------------


def _read_mapping(path: Path, what: str) -> dict[str, Any]:
    """A YAML file with a mapping; empty if there is none, as NetQASM has it."""
    if not path.exists():
        return {}
    data = parse_document(read_text(path), str(path)).data
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigurationError(f"must be {what}", file=str(path))
    return data


def _allocated(programs: Iterable[str], given: Mapping[str, Any], source: str) -> dict[str, str]:
    """The node of each role: the given one, else that of the role's name."""
    known = list(programs)
    for role, node in given.items():
        if role not in known:
            raise ConfigurationError(
                f"names a role {role!r}, of which there is no program (app_{role}.py); there "
                f"are {_listed(known)}{_meant(role, known)}",
                file=source,
            )
        if not isinstance(node, str) or not node:
            raise ConfigurationError(
                f"allocates the role {role} to {node!r}, which is no name of a node", file=source
            )
    missing = [role for role in known if role not in given]
    if given and missing:
        raise ConfigurationError(
            f"does not say on which node {_listed(missing)} runs; name all roles", file=source
        )
    return {role: given.get(role, role) for role in known}


def _entry(path: Path) -> Callable[..., Any]:
    module = importlib.import_module(path.stem)
    entry = getattr(module, ENTRY, None)
    if not callable(entry):
        raise ConfigurationError(
            f"has no function {ENTRY!r}, which is the program of its role", file=str(path)
        )
    return entry  # type: ignore[no-any-return]


def _post_function(path: Path) -> Callable[[Any], object] | None:
    if not path.exists():
        return None
    function = runpy.run_path(str(path)).get(ENTRY)
    if not callable(function):
        raise ConfigurationError(
            f"has no function {ENTRY!r}, to be called after the simulation", file=str(path)
        )
    return function  # type: ignore[no-any-return]


def _check_names(path: Path, entry: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
    parameters = [name for name in parameters_of(entry) if name != CONFIG_PARAMETER]
    for name in inputs:
        if not takes(entry, name):
            raise ConfigurationError(
                f"gives an input {name!r}, which the program does not take; it takes "
                f"{_listed(parameters)}{_meant(name, parameters)}",
                file=str(path),
            )


def _check_number(roles: Iterable[str], source: str) -> None:
    number = len(list(roles))
    if not number:
        raise ConfigurationError("an application has at least one program", file=source)
    if number > MAX_ROLES:
        raise ConfigurationError(
            f"has {number} roles; an application has at most {MAX_ROLES}", file=source
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _meant(wrong: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
