"""`qnodeos run`: programs on the CNPU of a node, and applications on simulated nodes."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qnodeos.cli.experiment import MAX_WORKERS, Backend, Profile, ProfileOption, Seed
from qnodeos.cli.run_inputs import application_tasks, build_tasks, load_on_node, read_inputs

if TYPE_CHECKING:
    from qnodeos.cnpu.remote import RemoteCnpu
    from qnodeos.transport import Address

MAX_PROGRAMS: Final = 100_000
MAX_POOL: Final = 256
DEFAULT_SPIN_MS: Final = 1.0
"""Longer than an answer of another node that is not held up takes (assumed)."""
SPINNING_CORES: Final = 4
"""With fewer, a program that keeps looking is in the way of a QNPU or of another program."""
DEFAULT_REHEARSE_MS: Final = 1.0
REHEARSING_CORES: Final = 2
_SWITCH_INTERVAL_S: Final = 0.0002
"""A program that computes lets one that has got its message run after this time (assumed;
Python's own 5 ms are longer than a qubit lives)."""
_MAX_TRACE_EVENTS: Final = 1 << 24
MAX_ROUNDS: Final = 100_000

_SIMULATION: Final = frozenset(
    ["network", "device", "backend", "profile", "seed", "rounds", "workers", "max_steps", "trace"]
)
"""Options that only simulated nodes have."""
_SERVICE: Final = frozenset(
    [
        "role",
        "programs",
        "number_input",
        "pool",
        "peer_timeout",
        "listen",
        "reach",
        "api",
        "realtime",
        "spin",
        "rehearse",
    ]
)
"""Options that only running services have."""


class Device(StrEnum):
    """Devices of simulated nodes."""

    GENERIC = "generic"
    NV = "nv"
    NV_NOISY = "nv-noisy"


def run(
    context: typer.Context,
    apps: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="APP...",
            help="Programs: Python files or modules with a function main, or APP:FUNCTION.",
        ),
    ] = None,
    node_file: Annotated[
        Path | None,
        typer.Option("--node", metavar="NODE.yaml", help="The node to run them on."),
    ] = None,
    app_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="An application of NetQASM, instead of APP: all its programs on simulated nodes, "
            "or with --node those of that node.",
        ),
    ] = None,
    sdk_script: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A script that calls NetQASM's simulate_application, instead of APP.",
        ),
    ] = None,
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
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Stop what is not done by then; in simulations virtual time, by default 1000 s.",
        ),
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
    network: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The network to simulate, as YAML; by default the application's network.yaml, or "
            "nodes that are all linked.",
        ),
    ] = None,
    device: Annotated[
        Device, typer.Option(help="Device of simulated nodes, where no file names it.")
    ] = Device.GENERIC,
    backend: Annotated[
        Backend | None,
        typer.Option(
            help="Instead of a network, simulate two NV nodes with one qubit each, at this depth."
        ),
    ] = None,
    profile: ProfileOption = Profile.ZERO,
    seed: Seed = 0,
    rounds: Annotated[
        int, typer.Option(min=1, max=MAX_ROUNDS, help="How often to run the application.")
    ] = 1,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_WORKERS,
            help="Processes for the rounds; 0: one per core, or one if there are few rounds.",
        ),
    ] = 0,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Stop a round after so many simulated events."),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="FORMATS",
            help="Write what the simulated nodes did to --out, with commas: csv, perfetto, otel.",
        ),
    ] = None,
) -> None:
    """Run programs written with the NetQASM SDK on the CNPU of a node, or on simulated nodes.

    On a node its QNPU must be running (`qnodeos serve`, `qnodeos up`).
    """
    _check_options(context, apps or [], node_file, app_dir, sdk_script)
    from qnodeos.cnpu.building import SWITCH

    if not prepared:
        os.environ[SWITCH] = "0"
    if sdk_script is not None or (app_dir is not None and node_file is None):
        from qnodeos.cli.app_run import Simulated, run_directory, run_script
        from qnodeos.cli.run_support import trace_formats

        how = Simulated(
            network=network,
            device=device.value,
            backend=None if backend is None else backend.value,
            profile=profile.value,
            seed=seed,
            rounds=rounds,
            workers=workers,
            timeout_s=timeout,
            steps=max_steps,
            out=out,
            json=json,
            trace_formats=trace_formats(trace, out) if trace is not None else (),
        )
        with terminated_as_by_ctrl_c():
            if sdk_script is not None:
                run_script(sdk_script, how)
            elif app_dir is not None:
                run_directory(app_dir, read_inputs(inputs, input_ or []), how)
        return
    assert node_file is not None
    from qnodeos.cli.programs import build_cnpu, hardware_names
    from qnodeos.cli.run_results import report, write
    from qnodeos.cnpu import external
    from qnodeos.cnpu.runner import ProgramRunner, ProgramState
    from qnodeos.cnpu.warm_up import warm_up
    from qnodeos.service.node_file import load_node
    from qnodeos.transport import Address

    for folder in (out, json.parent if json is not None else None):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    node = load_node(node_file)
    external.install(hardware_names())
    with ExitStack() as cleanup:
        if out is not None:
            logs = str(out)
        else:
            logs = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="qnodeos-run-"))
        given = read_inputs(inputs, input_ or [])
        roles: dict[str, str] = {}
        if app_dir is not None:
            application = load_on_node(app_dir, node)
            cleanup.enter_context(application.active())
            roles = dict(application.allocation)
            tasks = application_tasks(application, node, given, programs, number_input, logs)
        else:
            tasks = build_tasks(apps or [], node, role, given, programs, number_input, logs)
        cleanup.enter_context(terminated_as_by_ctrl_c())
        cnpu = cleanup.enter_context(
            closing(
                build_cnpu(
                    node,
                    role=role,
                    roles=roles,
                    api=Address.parse(api) if api is not None else None,
                    listen_on=Address.parse(listen) if listen is not None else None,
                    reach=_reach(reach or []),
                    start_timeout_s=peer_timeout,
                    spin_s=_spin_ms(spin) / 1_000,
                    rehearse_s=_rehearse_ms(rehearse) / 1_000,
                )
            )
        )
        # This sees as well that the QNPU is there, and the right one.
        warm_up(cnpu.flavour, cnpu.capabilities)
        pool = min(pool or len(tasks) // programs, len(tasks))
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
            on_end=report,
        )
        failure: BaseException | None = None
        in_time = True
        try:
            in_time = runner.run(timeout)
        except BaseException as error:  # Ctrl-C, or nobody reads what is reported
            failure = error
    if runner.lacks:
        typer.echo(f"qnodeos: {runner.lacks}", err=True)
    write(runner, node, out, json)
    if isinstance(failure, KeyboardInterrupt):
        done = sum(one.state is ProgramState.DONE for one in runner.runs)
        typer.echo(f"Interrupted: {done} of {len(runner.runs)} programs are done and kept.")
    if failure is not None:
        raise failure
    if not in_time:
        typer.echo(f"qnodeos: stopped after {timeout:g} s (--timeout)", err=True)
    if any(one.state is not ProgramState.DONE for one in runner.runs):
        raise typer.Exit(1)


def _check_options(
    context: typer.Context,
    apps: list[str],
    node_file: Path | None,
    app_dir: Path | None,
    sdk_script: Path | None,
) -> None:
    """See that it is said what to run, once, and nothing that has no meaning for it.

    Raises:
        typer.BadParameter: it is not.
    """
    what = [bool(apps), app_dir is not None, sdk_script is not None]
    if sum(what) != 1:
        raise typer.BadParameter("name one of: APP..., --app-dir DIR, --sdk-script FILE")
    if apps and node_file is None:
        raise typer.BadParameter(
            "programs run on a node: name its file (NODE.yaml), or a whole application with "
            "--app-dir to simulate",
            param_hint="--node",
        )
    if sdk_script is not None and node_file is not None:
        raise typer.BadParameter(
            "a script simulates its own nodes; leave --node out", param_hint="--node"
        )
    if sdk_script is not None and _is_given(context, "workers"):
        raise typer.BadParameter(
            "a script runs its rounds itself, in one process; leave it out",
            param_hint="--workers",
        )
    is_simulated = node_file is None
    network = [name for name in ("network", "device", "backend") if _is_given(context, name)]
    if len(network) > 1:
        raise typer.BadParameter(
            "each of them says which nodes there are; name one",
            param_hint=" ".join(f"--{name}" for name in network),
        )
    for name in sorted(_SERVICE if is_simulated else _SIMULATION):
        if _is_given(context, name):
            where = "running services (--node)" if is_simulated else "simulated nodes"
            raise typer.BadParameter(
                f"has a meaning only on {where}; leave it out",
                param_hint=f"--{name.replace('_', '-')}",
            )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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
def terminated_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does; only the main thread can arrange that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        if not callable(signal.getsignal(signal.SIGINT)):
            raise KeyboardInterrupt  # Ctrl-C itself is ignored, as in the background of a script
        signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
