"""Running the applications that come with NetQASM and judging what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, Final

from qnodeos.applications import Application, load_application, names, simulate
from qnodeos.applications.conformance.catalogue import SCRIPTS, SUBJECTS, Subject, installed
from qnodeos.applications.conformance.observation import Observation, Verdict
from qnodeos.errors import ConfigurationError

DEVICES: Final = ("generic", "nv")
"""The noiseless devices: all qubits alike, and an electron with carbon memories."""
ALL_DEVICES: Final = "all"
NO_CRITERION: Final = "none: this suite does not know the application"
_BY_NAME: Final = {subject.name: subject for subject in SUBJECTS}


@dataclass(frozen=True)
class Case:
    """An application to be run on a device.

    Attributes:
        name: of the application.
        device: one of `DEVICES`.
        seed: of all randomness.
        runs: at least so many; those that its criterion needs if it is 0.
    """

    name: str
    device: str
    seed: int
    runs: int = 0

    @property
    def total_runs(self) -> int:
        """How many runs there will be; none of an application without a criterion."""
        subject = _BY_NAME.get(self.name)
        return 0 if subject is None else max(subject.runs, self.runs)


@dataclass(frozen=True)
class Finding:
    """What was found of an application on a device.

    Attributes:
        name: of the application.
        device: one of `DEVICES`.
        passed: whether it does what it promises.
        criterion: what had to hold.
        detail: the numbers, or what went wrong.
    """

    name: str
    device: str
    passed: bool
    criterion: str
    detail: str


def cases(device: str, only: str | None, seed: int, runs: int) -> list[Case]:
    """What is to be run; those that take longest come first.

    Args:
        device: one of `DEVICES`, or `ALL_DEVICES`.
        only: an application, by its whole name or the last part of it; None for all.
        seed: of all randomness.
        runs: at least so many of each; 0 for what the criteria need.

    Raises:
        ConfigurationError: there is no such application.
    """
    names = sorted({*installed(), *_BY_NAME})
    chosen = [name for name in names if only is None or only in (name, name.partition("/")[2])]
    if not chosen:
        raise ConfigurationError(f"no application {only!r}; there are {', '.join(names)}")
    devices = DEVICES if device == ALL_DEVICES else (device,)
    found = [Case(name, where, seed, runs) for where in devices for name in chosen]
    return sorted(found, key=lambda case: -case.total_runs)


def examine(case: Case, on_run: Callable[[], None] = lambda: None) -> Finding:
    """Run an application as often as its criterion needs, and judge it.

    Args:
        case: the application and the device.
        on_run: called after every run.
    """
    subject = _BY_NAME.get(case.name)
    if subject is None:
        return Finding(case.name, case.device, False, NO_CRITERION, "not run")
    try:
        verdict = subject.judge(_observe_all(subject, case, on_run))
    except Exception as error:
        # Of a program, of its imports or assertions, or of a result that the criterion misses.
        verdict = Verdict(False, f"{type(error).__name__}: {error}".strip(": "))
    remark = f" ({subject.flaw})" if subject.flaw is not None else ""
    return Finding(
        case.name, case.device, verdict.passed, subject.criterion, verdict.detail + remark
    )


def observe(
    subject: Subject, case: Case, inputs: Mapping[str, Mapping[str, Any]], number: int
) -> Observation:
    """Run an application once.

    Args:
        subject: the application.
        case: the device, and the seed of all randomness.
        inputs: of its programs, by role.
        number: of the run, which has randomness of its own.

    Raises:
        QNodeOSError: the run failed.
    """
    (one,) = simulate(
        load(subject.name),
        device=case.device,
        inputs=deepcopy(inputs),  # some programs append to the lists they are given
        seed=f"{case.seed}/{case.name}/{case.device}/{number}",
        use_app_config=not subject.name.startswith(SCRIPTS),
    )
    if one.problem is not None:
        raise one.problem
    results = {role: one.results.get(f"app_{role}") for role in inputs}
    received = {
        role: tuple(text for _, text in messages) for role, messages in one.messages.items()
    }
    return Observation(inputs, results, one.output, received)


def _observe_all(subject: Subject, case: Case, on_run: Callable[[], None]) -> list[Observation]:
    """Run an application with inputs drawn for each run."""
    draw = Random(f"{case.seed}/{case.name}/{case.device}/inputs")
    seen = []
    for number in range(case.total_runs):
        seen.append(observe(subject, case, subject.draw(draw, number), number))
        on_run()
    return seen


def report(findings: Iterable[Finding]) -> dict[str, Any]:
    """The findings as plain data, by name and device.

    Returns:
        ``applications`` (a list of the fields of `Finding`), ``passed`` and ``failed`` (counts).
    """
    ordered = sorted(findings, key=lambda finding: (finding.name, finding.device))
    passed = sum(finding.passed for finding in ordered)
    return {
        "applications": [asdict(finding) for finding in ordered],
        "passed": passed,
        "failed": len(ordered) - passed,
    }


@cache
def load(name: str) -> Application:
    """An application of the installed NetQASM, loaded once."""
    path = installed().get(name)
    if path is None:
        raise ConfigurationError(f"the installed NetQASM has no application {name}")
    if not name.startswith(SCRIPTS):
        return load_application(path)
    with names.simulated():
        module = _script(path)
    application = Application.from_functions(_SCRIPT_PROGRAMS[name](module), name=name)
    return replace(application, post_function=getattr(module, "post_function", None))


_SCRIPT_PROGRAMS: Final[Mapping[str, Callable[[ModuleType], Mapping[str, Any]]]] = {
    "sdk_scripts/epr": lambda module: {"Alice": module.run_alice, "Bob": module.run_bob},
    "sdk_scripts/rsp": lambda module: {"client": module.run_client, "server": module.run_server},
}
"""The programs of each script, by role, as its own main part runs them."""


def _script(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"netqasm_script_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
