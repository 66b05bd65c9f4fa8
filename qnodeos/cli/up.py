"""`qnodeos up`: a whole system of processes on this machine, in one command."""

from __future__ import annotations

import fcntl
import json as json_module
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from qnodeos.errors import CallerError

if TYPE_CHECKING:
    from qnodeos.cli.processes import Child, Processes
    from qnodeos.signals import StopSignals

_POLL_S: Final = 0.25
_LAB_LINES: Final = 3
_COLOURS: Final = {"ready": "green", "died": "bold red", "starting": "yellow"}


def up(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIRECTORY",
            help="With lab.yaml, a file NODE.yaml for each of its nodes, and controller.yaml.",
        ),
    ],
    json: Annotated[
        Path | None, typer.Option(help="Write how the processes fared here, at the end.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--for", min=0, metavar="SECONDS", help="Stop by itself after this time."),
    ] = None,
) -> None:
    """Start laboratory, services and controller, and show their state until Ctrl-C.

    Their logs are in run/ of the directory. A process that dies is reported, with the end of its
    log, and not started again. Exit codes: 0 all processes ran until they were stopped; 1 one
    died; 2 a file is wrong.
    """
    from qnodeos.cli.processes import Processes
    from qnodeos.cli.two_nodes import LAB_RESULT, RUN, system_specs
    from qnodeos.errors import ChildProcessFailedError
    from qnodeos.signals import StopSignals

    specs = system_specs(directory)
    logs = directory / RUN
    logs.mkdir(parents=True, exist_ok=True)
    console = Console()
    with ExitStack() as cleanup:
        cleanup.enter_context(_alone(logs))
        for old in (logs / LAB_RESULT, *(logs / f"{spec.name}.log" for spec in specs)):
            old.unlink(missing_ok=True)
        stop = cleanup.enter_context(StopSignals())
        processes = cleanup.enter_context(Processes(specs, logs))
        watcher = _Watcher(processes, console)
        failure: ChildProcessFailedError | None = None
        try:
            _start(processes, watcher, stop)
            _watch(watcher, stop, seconds)
        except ChildProcessFailedError as error:
            failure = error
        finally:
            console.print("Stopping all processes, the last one first.")
            processes.stop_all()
            watcher.report(processes.poll())
        watcher.show_laboratory()
        fared = _fared(processes, logs)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(json_module.dumps(fared, indent=1) + "\n", "utf-8")
    if failure is not None:
        raise failure
    if not fared["ok"]:
        raise typer.Exit(1)


@contextmanager
def _alone(logs: Path) -> Iterator[None]:
    """Keep a second `qnodeos up` away from the logs of this one.

    Raises:
        CallerError: this is the second.
    """
    folder = os.open(logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CallerError(
                f"another `qnodeos up` runs {logs.parent}; stop it, or copy the files to another "
                "directory and change their ports"
            ) from None
        yield
    finally:
        os.close(folder)


class _Watcher:
    """Says what has become of the processes."""

    def __init__(self, processes: Processes, console: Console) -> None:
        self.processes = processes
        self.console = console

    def look(self, timeout_s: float) -> None:
        """Wait a little, and report deaths."""
        self.report(self.processes.poll(timeout_s))

    def report(self, changed: list[Child]) -> None:
        """Report changes; deaths with the last words."""
        for child in changed:
            if child.state == "died":
                self.console.print(child.obituary(), style="red", markup=False, highlight=False)
            elif not self.console.is_terminal:
                self.console.print(f"{child.name}: {child.state} {child.status}", markup=False)

    def show_laboratory(self) -> None:
        """Show what the laboratory has counted, which it writes at its end."""
        lab = self.processes.children[0]
        if lab.ended_well:
            for line in lab.last_lines(_LAB_LINES):
                self.console.print(line, markup=False, highlight=False)

    def table(self) -> Table:
        """The states now."""
        table = Table(box=SIMPLE_HEAD, caption="Ctrl-C stops all processes", caption_justify="left")
        for column in ("process", "state", "pid", "ready after", "status"):
            table.add_column(column, overflow="fold")
        for child in self.processes.children:
            state = str(child.state)
            table.add_row(
                child.name,
                f"[{_COLOURS[state]}]{state}[/]" if state in _COLOURS else state,
                "" if child.pid is None else str(child.pid),
                "" if child.ready_s is None else f"{child.ready_s:.1f} s",
                child.status.replace("[", r"\["),
            )
        return table


def _start(processes: Processes, watcher: _Watcher, stop: StopSignals) -> None:
    """Start all in order.

    Raises:
        ChildProcessFailedError: one died, or did not become ready in time.
    """
    for child in processes.children:
        if stop.is_set():
            return
        processes.start(child.name)
        processes.wait_ready(child.name, give_up=stop.is_set)
        if child.state == "ready" and not watcher.console.is_terminal:
            watcher.console.print(
                f"{child.name}: ready after {child.ready_s or 0:.1f} s: {child.status}",
                markup=False,
            )


def _watch(watcher: _Watcher, stop: StopSignals, seconds: float | None) -> None:
    """Show the table until a signal comes, or the time is over."""
    deadline_s = None if seconds is None else time.monotonic() + seconds
    console = watcher.console
    with ExitStack() as cleanup:
        live = None
        if console.is_terminal:
            live = cleanup.enter_context(
                Live(watcher.table(), console=console, auto_refresh=False, transient=True)
            )
        else:
            console.print("All processes are ready; Ctrl-C stops them.")
        while not stop.is_set() and (deadline_s is None or time.monotonic() < deadline_s):
            watcher.look(_POLL_S)
            if live is not None:
                live.update(watcher.table(), refresh=True)


def _fared(processes: Processes, logs: Path) -> dict[str, Any]:
    """How the processes fared, for JSON."""
    from qnodeos.cli.two_nodes import LAB_RESULT

    children = processes.children
    result = logs / LAB_RESULT
    return {
        "ok": all(child.ended_well for child in children),
        "processes": {
            child.name: {
                "state": str(child.state),
                "exit_code": child.exit_code,
                "ready_s": child.ready_s,
                "status": child.status,
                "log": str(child.log),
            }
            for child in children
        },
        "laboratory": json_module.loads(result.read_text("utf-8")) if result.exists() else None,
    }
