"""`qnodeos run`: programs on the CNPU of a node."""

from __future__ import annotations

import gc
import inspect
import json as json_module
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from qnodeos.cnpu.remote import RemoteCnpu
    from qnodeos.cnpu.runner import ProgramRun, ProgramRunner, ProgramTask
    from qnodeos.service.node_file import NodeFile
    from qnodeos.transport import Address

MAX_PROGRAMS: Final = 100_000
MAX_POOL: Final = 256
DEFAULT_SPIN_MS: Final = 1.0
"""Longer than an answer of another node that is not held up takes (assumed)."""
SPINNING_CORES: Final = 4
"""With fewer, a program that keeps looking is in the way of a QNPU or of another program."""
DEFAULT_REHEARSE_MS: Final = 1.0
REHEARSING_CORES: Final = 2
_SHOWN_CHARACTERS: Final = 200
_SWITCH_INTERVAL_S: Final = 0.0002
"""A program that computes lets one that has got its message run after this time (assumed;
Python's own 5 ms are longer than a qubit lives)."""
_MAX_TRACE_EVENTS: Final = 1 << 24


def run(
    apps: Annotated[
        list[str],
        typer.Argument(
            metavar="APP...",
            help="Programs: Python files or modules with a function main, or APP:FUNCTION.",
        ),
    ],
    node_file: Annotated[
        Path, typer.Option("--node", metavar="NODE.yaml", help="The node to run them on.")
    ],
    role: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Application name under which other nodes know them."),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[PROGRAM.]NAME=VALUE",
            help="An input of the programs, or of one of them (repeatable).",
        ),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inputs, as YAML or JSON.")
    ] = None,
    programs: Annotated[
        int, typer.Option(min=1, max=MAX_PROGRAMS, help="Copies of each program to run.")
    ] = 1,
    number_input: Annotated[
        str | None,
        typer.Option(
            metavar="[PROGRAM.]NAME", help="Input that gets the number of the copy: 0, 1, ..."
        ),
    ] = None,
    pool: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_POOL, help="Programs that run at once; 0: one copy of each APP."
        ),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write results, errors and the host's trace here."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results here.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Stop what is not done by then."),
    ] = None,
    peer_timeout: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for the programs of another node to be there."),
    ] = 60.0,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where programs of other nodes reach these, instead of applications.listen.",
        ),
    ] = None,
    reach: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE=ADDRESS", help="Where the programs of another node are (repeatable)."
        ),
    ] = None,
    api: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where the QNPU is, instead of api.listen."),
    ] = None,
    realtime: Annotated[
        int,
        typer.Option(
            min=0,
            max=99,
            metavar="PRIORITY",
            help="Real-time priority of the programs (SCHED_FIFO), below that of the services; "
            "0: none.",
        ),
    ] = 0,
    spin: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1000,
            metavar="MS",
            help="How long a program that waits for a message keeps looking before it sleeps; "
            f"{DEFAULT_SPIN_MS:g} if there are {SPINNING_CORES} cores, else 0.",
        ),
    ] = None,
    rehearse: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1000,
            metavar="MS",
            help="How often a program that waits goes through what comes next, so that it is "
            f"quick then; {DEFAULT_REHEARSE_MS:g} if there are 2 cores, else 0: never.",
        ),
    ] = None,
    prepared: Annotated[
        bool,
        typer.Option(
            "--prepared/--no-prepared", help="Prepare blocks that repeat, or assemble each anew."
        ),
    ] = True,
) -> None:
    """Run programs written with the NetQASM SDK on the CNPU of a node.

    The node's QNPU must be running (`qnodeos serve`, `qnodeos up`).
    """
    from qnodeos.cli.programs import build_cnpu
    from qnodeos.cnpu import building, external
    from qnodeos.cnpu.runner import ProgramRunner, ProgramState
    from qnodeos.cnpu.warm_up import warm_up
    from qnodeos.service.node_file import load_node
    from qnodeos.transport import Address

    for folder in (out, json.parent if json is not None else None):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    if not prepared:
        os.environ[building.SWITCH] = "0"
    node = load_node(node_file)
    external.install()
    with ExitStack() as cleanup:
        if out is not None:
            logs = str(out)
        else:
            logs = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="qnodeos-run-"))
        given = _inputs(inputs, input_ or [])
        tasks = _tasks(apps, node, role, given, programs, number_input, logs)
        cleanup.enter_context(_terminated_as_by_ctrl_c())
        cnpu = cleanup.enter_context(
            closing(
                build_cnpu(
                    node,
                    role=role,
                    api=Address.parse(api) if api is not None else None,
                    listen_on=Address.parse(listen) if listen is not None else None,
                    reach=_reach(reach or []),
                    start_timeout_s=peer_timeout,
                    spin_s=_spin_ms(spin) / 1_000,
                    rehearse_s=_rehearse_ms(rehearse) / 1_000,
                )
            )
        )
        warm_up(
            cnpu.flavour, cnpu.capabilities
        )  # and see that the QNPU is there, and the right one
        pool = min(pool or len(apps), len(tasks))
        _check_pool(pool, cnpu)
        gc.collect()
        gc.freeze()
        cleanup.callback(gc.unfreeze)
        cleanup.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        runner = ProgramRunner(
            cnpu,
            tasks,
            pool=pool,
            trace_capacity=_trace_capacity(pool),
            realtime_priority=realtime,
            on_end=_report,
        )
        failure: BaseException | None = None
        in_time = True
        try:
            in_time = runner.run(timeout)
        except BaseException as error:  # Ctrl-C, or nobody reads what is reported
            failure = error
    if runner.lacks:
        typer.echo(f"qnodeos: {runner.lacks}", err=True)
    _write(runner, node, out, json)
    if isinstance(failure, KeyboardInterrupt):
        done = sum(one.state is ProgramState.DONE for one in runner.runs)
        typer.echo(f"Interrupted: {done} of {len(runner.runs)} programs are done and kept.")
    if failure is not None:
        raise failure
    if not in_time:
        typer.echo(f"qnodeos: stopped after {timeout:g} s (--timeout)", err=True)
    if any(one.state is not ProgramState.DONE for one in runner.runs):
        raise typer.Exit(1)


def _inputs(path: Path | None, pairs: list[str]) -> dict[str, Any]:
    """Inputs from a file, and from the command line, which wins.

    Raises:
        ConfigurationError: the file is wrong.
        typer.BadParameter: a pair is none.
    """
    from qnodeos.config.document import parse_document
    from qnodeos.errors import ConfigurationError

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


def _tasks(
    apps: list[str],
    node: NodeFile,
    role: str | None,
    given: dict[str, Any],
    copies: int,
    number_input: str | None,
    logs: str,
) -> list[ProgramTask]:
    from netqasm.runtime.app_config import AppConfig
    from netqasm.sdk.config import LogConfig

    from qnodeos.cli.programs import check_inputs, load_program
    from qnodeos.cnpu.runner import ProgramTask

    tasks = []
    loaded = [load_program(spec) for spec in apps]
    _check_programs((*given, number_input or ""), [name for name, _ in loaded])
    for copy in range(copies):
        for name, function in loaded:
            inputs = _inputs_of(name, given)
            if number_input is not None:
                inputs |= _inputs_of(name, {number_input: copy})
            if "app_config" not in inputs and _takes(function, "app_config"):
                inputs["app_config"] = AppConfig(
                    app_name=role if role is not None else name,
                    node_name=node.name,
                    main_func=function,
                    log_config=LogConfig(log_subroutines_dir=logs, comm_log_dir=logs, log_dir=logs),
                    inputs=_inputs_of(name, given),
                )
            check_inputs(name, function, inputs)
            title = name if copies == 1 else f"{name} {copy}"
            tasks.append(ProgramTask(title, function, inputs))
    return tasks


def _check_programs(names: Sequence[str], programs: list[str]) -> None:
    """See that inputs are for programs that run.

    Raises:
        ConfigurationError: one is not.
    """
    from qnodeos.errors import ConfigurationError

    for name in names:
        program = name.rpartition(".")[0]
        if program and program not in programs:
            raise ConfigurationError(
                f"input {name} is for a program {program!r}, which does not run here; there are "
                + ", ".join(sorted(set(programs)))
            )


def _inputs_of(program: str, given: dict[str, Any]) -> dict[str, Any]:
    """Those for all programs, and those for this one, which win."""
    own = f"{program}."
    return {name: value for name, value in given.items() if "." not in name} | {
        name.removeprefix(own): value for name, value in given.items() if name.startswith(own)
    }


def _check_pool(pool: int, cnpu: RemoteCnpu) -> None:
    """Fail before any program runs, not when the QNPU refuses some of them.

    Raises:
        ConfigurationError: the QNPU does not serve so many programs.
    """
    from qnodeos.errors import ConfigurationError

    most = cnpu.most_programs
    if most is not None and pool > most:
        raise ConfigurationError(
            f"{pool} programs at once are more than the QNPU of {cnpu.node_name} serves: at most "
            f"{most} (limits.processes and limits.connections of the node file); with "
            f"--pool {most} the others wait for their turn"
        )


def _takes(function: Any, name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except ValueError:
        return False


def _reach(pairs: list[str]) -> dict[str, Address]:
    from qnodeos.transport import Address

    places = {}
    for pair in pairs:
        node, equals, address = pair.partition("=")
        if not (equals and node):
            raise typer.BadParameter(f"{pair!r} is not NODE=ADDRESS", param_hint="--reach")
        places[node] = Address.parse(address)
    return places


def _spin_ms(asked: float | None) -> float:
    if asked is not None:
        return asked
    return DEFAULT_SPIN_MS if len(os.sched_getaffinity(0)) >= SPINNING_CORES else 0.0


def _rehearse_ms(asked: float | None) -> float:
    if asked is not None:
        return asked
    return DEFAULT_REHEARSE_MS if len(os.sched_getaffinity(0)) >= REHEARSING_CORES else 0.0


def _trace_capacity(pool: int) -> int:
    from qnodeos.cnpu.remote import TRACE_CAPACITY

    return min(16 * TRACE_CAPACITY, _MAX_TRACE_EVENTS // pool)


@contextmanager
def _terminated_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does; only the main thread can arrange that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _report(one: ProgramRun) -> None:
    """One line for a program that has ended."""
    took = ""
    if one.started_s is not None and one.ended_s is not None:
        took = f" after {one.ended_s - one.started_s:.3g} s"
    line = f"{one.task.name}: {one.state}{took}"
    if one.error is not None:
        typer.echo(f"{line}: {type(one.error).__name__}: {one.error}", err=True)
        return
    result = repr(_numbers(one.result))
    if len(result) > _SHOWN_CHARACTERS:
        result = f"{result[:_SHOWN_CHARACTERS]}... (all of it: --json FILE)"
    typer.echo(line if one.result is None else f"{line}: {result}")


def _write(runner: ProgramRunner, node: NodeFile, out: Path | None, json: Path | None) -> None:
    results = json_module.dumps(_results(runner, node), indent=1, default=_plain) + "\n"
    if json is not None:
        json.write_text(results, "utf-8")
    if out is None:
        return
    from qnodeos.cnpu.remote import TRACE_UNIT_NS
    from qnodeos.trace.csvformat import write_trace_csv

    (out / "results.json").write_text(results, "utf-8")
    errors = "\n".join(one.details for one in runner.runs if one.details)
    (out / "errors.log").write_text(errors, "utf-8")
    with (out / f"{node.name}-host.csv").open("w", encoding="utf-8") as stream:
        write_trace_csv(
            stream,
            runner.trace_columns,
            unit_ns=TRACE_UNIT_NS,
            created=datetime.now().replace(microsecond=0),
            description=f"Host of node {node.name}; times of its monotonic clock",
        )


def _results(runner: ProgramRunner, node: NodeFile) -> dict[str, Any]:
    return {
        "node": node.name,
        "dropped_trace_events": runner.dropped_events,
        "programs": [
            {
                "number": one.number,
                "name": one.task.name,
                "inputs": {k: v for k, v in one.task.inputs.items() if k != "app_config"},
                "state": one.state.value,
                "result": _numbers(one.result),
                "error": None
                if one.error is None
                else {"kind": type(one.error).__name__, "text": str(one.error)},
                "started_s": one.started_s,
                "ended_s": one.ended_s,
            }
            for one in runner.runs
        ],
    }


def _numbers(value: Any) -> Any:
    """Futures, which are numbers to Python but not to json, as what they stand for."""
    if isinstance(value, bool) or not isinstance(value, int | list | tuple | dict):
        return value
    if isinstance(value, int):
        try:
            return int(value)
        except RuntimeError:  # a future whose subroutine was never flushed
            return None
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(key): _numbers(item) for key, item in value.items()
        }
    return [_numbers(item) for item in value]


def _plain(value: Any) -> Any:
    """What json does not know: numpy's numbers and arrays, or whatever it is as text."""
    tolist = getattr(value, "tolist", None)
    return tolist() if callable(tolist) else repr(value)
