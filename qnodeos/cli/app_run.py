"""`qnodeos run --app-dir` and `--sdk-script`: applications on simulated nodes."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console

from qnodeos.applications import RunLimits, load_application, names, read_network
from qnodeos.applications.logs import run_directory as make_run_directory
from qnodeos.applications.modules import ApplicationModules
from qnodeos.applications.scripts import script_options, simulate_application
from qnodeos.applications.simulation import Round, check_simulation
from qnodeos.cli.app_rounds import RoundReport, RoundWork, choose_workers, run_rounds
from qnodeos.cli.run_inputs import role_inputs
from qnodeos.cli.run_support import check_destinations, progress_bar, write_json
from qnodeos.cnpu.results import plain
from qnodeos.errors import ConfigurationError

_SHOWN_RESULTS: Final = 8
_SHOWN_CHARACTERS: Final = 200


@dataclass(frozen=True)
class Simulated:
    """How to simulate, as the command line says it; None for what it leaves open.

    Attributes:
        network: file of the network.
        device: of the nodes of a network that nothing describes.
        backend: two NV nodes at that depth of the simulation, instead of a network.
        profile: latencies.
        seed: of all randomness.
        rounds: how often; a script says so itself.
        timeout_s: virtual time of one round.
        steps: events of one round.
        out: directory for everything.
        json: file for the results.
        trace_formats: of the traces in `out`; none if empty.
        workers: processes; 0 chooses.
        done: the rounds that have ended.
    """

    network: Path | None
    device: str
    backend: str | None
    profile: str
    seed: int
    rounds: int
    timeout_s: float | None
    steps: int | None
    out: Path | None
    json: Path | None
    trace_formats: tuple[str, ...] = ()
    workers: int = 0
    done: list[RoundReport] = field(default_factory=list)

    def options(self) -> dict[str, Any]:
        """Options of `simulate`."""
        default = RunLimits()
        return {
            "network": None if self.network is None else read_network(self.network),
            "profile": self.profile,
            "seed": self.seed,
            "trace_formats": self.trace_formats,
            "limits": RunLimits(
                default.duration_s if self.timeout_s is None else self.timeout_s,
                default.steps if self.steps is None else self.steps,
            ),
        }


def run_directory(directory: Path, given: dict[str, Any], how: Simulated) -> None:
    """Simulate the application in a directory, and report.

    Args:
        directory: of the application.
        given: inputs, as `run_inputs.read_inputs` returns them.
        how: to simulate.

    Raises:
        ConfigurationError: the application or a file is wrong.
        typer.Exit: a program failed.
        KeyboardInterrupt: as it came, after what was done is written.
    """
    check_destinations(how.json, how.out)
    application = load_application(directory)
    application = application.with_inputs(role_inputs(application, given))
    options = how.options() | {"device": how.device, "backend": how.backend}
    check_simulation(application, **options)
    workers = choose_workers(how.workers, how.rounds, application)
    if application.network is not None and how.network is None and how.backend is None:
        options["network"] = read_network(application.network)  # once, and not in every round
    if how.rounds == 1:
        options["echo"] = lambda role, line: typer.echo(f"{role}| {line}")
    logs = make_run_directory(how.out)
    work = RoundWork(directory, application.inputs, how.rounds, logs, options)
    with (
        _reporting(application.name, how, directory),
        _progress(how.rounds) as on_progress,
        closing(run_rounds(work, application, workers, on_progress)) as rounds,
    ):
        for one in rounds:
            how.done.append(one)


def run_script(script: Path, how: Simulated) -> None:
    """Run a script that simulates its own application, and report what it simulated.

    Args:
        script: a Python file, which is run as a program of its own.
        how: to simulate; the script says which rounds, logs and hardware.

    Raises:
        ConfigurationError: there is no such file.
        typer.Exit: it raised.
        KeyboardInterrupt: as it came, after what was done is written.
    """
    if not script.is_file():
        raise ConfigurationError("there is no such file", file=str(script))
    check_destinations(how.json, how.out)

    def on_round(one: Round) -> None:
        how.done.append(RoundReport.of(one))

    options: dict[str, Any] = how.options() | {
        "echo": lambda _, line: typer.echo(line),
        "on_round": on_round,
    }
    if how.out is not None:
        options["log_dir"] = how.out
    arguments, sys.argv = sys.argv, [str(script)]
    token = script_options.set(options)
    try:
        with (
            _reporting(script.name, how),
            names.simulated(simulate_application),
            ApplicationModules(script.parent).active(),
        ):
            runpy.run_path(str(script), run_name="__main__")
        if not how.done:
            typer.echo(f"qnodeos: {script} did not call simulate_application", err=True)
    except Exception:
        traceback.print_exc()
        raise typer.Exit(1) from None
    finally:
        script_options.reset(token)
        sys.argv = arguments


@contextmanager
def _progress(rounds: int) -> Iterator[Callable[[int], None]]:
    if rounds == 1:
        yield lambda done: None
        return
    with progress_bar(Console(stderr=True), "rounds", rounds) as on_progress:
        yield on_progress


@contextmanager
def _reporting(name: str, how: Simulated, directory: Path | None = None) -> Iterator[None]:
    """Write what was done, however it ended; show it if it is that of an application's directory.

    A script shows itself what it wants to.
    """
    try:
        yield
    except KeyboardInterrupt:
        _write(name, how, complete=False)
        typer.echo(f"Interrupted: {len(how.done)} rounds are done and kept.")
        raise
    failed = [one for one in how.done if one.problem is not None]
    _write(name, how, complete=not failed)
    if directory is None:
        return
    _show(how.done)
    for one in failed:
        _complain(one)
    if failed:
        raise typer.Exit(1)


def _show(done: list[RoundReport]) -> None:
    """What each program returned; how often, if there were several rounds."""
    for key in dict.fromkeys(key for one in done for key in one.results):
        role = key.removeprefix("app_")
        texts = Counter(repr(one.results[key]) for one in done if key in one.results)
        for whole, times in texts.most_common(_SHOWN_RESULTS):
            text = whole
            if len(whole) > _SHOWN_CHARACTERS:
                text = f"{whole[:_SHOWN_CHARACTERS]}... (all of it: --json FILE)"
            typer.echo(f"{role}: {text}" if len(done) == 1 else f"{role}: {times} x {text}")
        if len(texts) > _SHOWN_RESULTS:
            typer.echo(f"{role}: and {len(texts) - _SHOWN_RESULTS} other results")
    total_ms = sum(one.duration_ns for one in done) / 1_000_000
    rounds = "1 round" if len(done) == 1 else f"{len(done)} rounds"
    typer.echo(f"{rounds} in {total_ms:g} ms of virtual time (simulated)")


def _complain(one: RoundReport) -> None:
    typer.echo(f"qnodeos: round {one.number}: {one.problem}", err=True)
    for role, error in one.errors.items():
        if not error.is_stalled:
            typer.echo(f"  {role}: {error.kind}: {error.text}{error.place}", err=True)


def _write(name: str, how: Simulated, *, complete: bool) -> None:
    summary = {
        "application": name,
        "backend": f"{how.backend or 'behavioural'} (simulated)",
        "network": None if how.network is None else str(how.network),
        "device": how.device,
        "seed": how.seed,
        "profile": how.profile,
        "complete": complete,
        "rounds": [
            {
                "number": one.number,
                "results": plain(one.results),
                "errors": {
                    role: {"kind": error.kind, "text": error.text}
                    for role, error in one.errors.items()
                },
                "duration_ns": one.duration_ns,
            }
            for one in how.done
        ],
    }
    if how.json is not None:
        write_json(how.json, summary)
    if how.out is not None:
        write_json(how.out / "results.json", summary)
