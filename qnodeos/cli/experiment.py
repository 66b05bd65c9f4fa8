"""`qnodeos experiment ...` and `qnodeos demo`."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Run one of the paper's experiments on simulated nodes.", no_args_is_help=True
)

DEMO_CIRCUITS_PER_SET = 60
DEMO_DIRECTORY = Path("results/demo")
MAX_WORKERS = 64
_RANGE_MAX = 1_000
MULTITASKING_SECONDS = 60.0


class Profile(StrEnum):
    """Latency profiles."""

    PAPER = "paper"
    PREPARED = "prepared"
    ZERO = "zero"


class Link(StrEnum):
    """Link presets."""

    PAPER = "paper"
    FAST = "fast"
    PROMPT = "prompt"


class Backend(StrEnum):
    """How deep the simulation goes."""

    BEHAVIOURAL = "behavioural"
    INSTRUMENT = "instrument"


Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness.")]
ProfileOption = Annotated[
    Profile, typer.Option(help="Software latencies: the paper's, with prepared blocks, or none.")
]
BackendOption = Annotated[
    Backend,
    typer.Option(
        help="Depth of the simulation: devices that answer from a model, or nodes down to their "
        "instruments (needs the extra 'lab')."
    ),
]
LinkOption = Annotated[
    Link,
    typer.Option(
        help="Entanglement: the paper's rate, attempts without interruption, or within ms."
    ),
]
NetworkFile = Annotated[
    Path | None, typer.Option(help="YAML or JSON file; its fields override those of --link.")
]
JsonFile = Annotated[Path | None, typer.Option(help="Write the result here.")]
OutDirectory = Annotated[
    Path | None,
    typer.Option(help="Directory for plots, dataset and traces; none are made without."),
]
TraceFormats = Annotated[
    str | None,
    typer.Option(
        help="Formats of the traces in --out, with commas: csv, perfetto, otel; or none. "
        "\\[default: csv,perfetto]",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option(min=0, max=MAX_WORKERS, help="Processes; 0: one per core.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No tables and no progress bar.")]


def _require_a_use(quiet: bool, json: Path | None, out: Path | None) -> None:
    if quiet and json is None and out is None:
        raise typer.BadParameter("nothing would be kept: add --json or --out", param_hint="--quiet")


def _processes(workers: int) -> int:
    return workers or os.cpu_count() or 1


@app.command()
def dqc(
    circuits_per_set: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="Circuits per (alpha, theta).")
    ] = 1200,
    seed: Seed = 1,
    profile: ProfileOption = Profile.PAPER,
    backend: BackendOption = Backend.BEHAVIOURAL,
    link: LinkOption = Link.PAPER,
    config: NetworkFile = None,
    json: JsonFile = None,
    out: OutDirectory = None,
    trace: TraceFormats = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Delegated quantum computation between two NV nodes (paper, Fig. 4)."""
    _require_a_use(quiet, json, out)
    from qnodeos.assembly import NetworkConfig, load_network
    from qnodeos.cli.dqc_run import run_and_report
    from qnodeos.cli.run_support import trace_formats
    from qnodeos.experiments.dqc import DqcSettings

    network = (
        load_network(config, link.value) if config is not None else NetworkConfig.preset(link.value)
    )
    settings = DqcSettings(
        circuits_per_set=circuits_per_set,
        seed=seed,
        profile=profile.value,
        network=network,
        trace_directory=out,
        trace_formats=trace_formats(trace, out),
        backend=backend.value,
    )
    run_and_report(settings, workers=_processes(workers), json_path=json, out=out, quiet=quiet)


@app.command()
def multitasking(
    n: Annotated[
        str, typer.Option(help="Numbers of DQC pairs, and of LGT programs: 1,2,5 or 1..5.")
    ] = "1,2,3,4,5",
    scheduler: Annotated[
        str, typer.Option(help="Schedulers to compare, with commas; the paper's is fcfs.")
    ] = "fcfs",
    seconds: Annotated[
        float, typer.Option(help="Virtual time of each multitasked run, in seconds.")
    ] = MULTITASKING_SECONDS,
    seed: Seed = 1,
    profile: ProfileOption = Profile.PAPER,
    link: LinkOption = Link.PROMPT,
    mocked: Annotated[
        bool,
        typer.Option("--mocked", help="Herald as usual, but deliver pairs without correlation."),
    ] = False,
    json: JsonFile = None,
    out: OutDirectory = None,
    trace: TraceFormats = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """DQC and LGT programs at once, and one after another (paper, Fig. 5)."""
    _require_a_use(quiet, json, out)
    from qnodeos.assembly import NetworkConfig
    from qnodeos.cli.multitasking_run import MULTITASKING_TRACES, run_and_report
    from qnodeos.cli.run_support import trace_formats
    from qnodeos.experiments.multitasking import MultitaskingSettings

    network = NetworkConfig.preset(link.value)
    if mocked:
        network = network.model_copy(
            update={"link": network.link.model_copy(update={"mocked": True})}
        )
    settings = MultitaskingSettings(
        pairs=_numbers(n),
        schedulers=tuple(scheduler.split(",")),
        seconds=seconds,
        seed=seed,
        profile=profile.value,
        network=network,
        trace_directory=out and out / MULTITASKING_TRACES,
        trace_formats=trace_formats(trace, out),
    )
    run_and_report(settings, workers=_processes(workers), json_path=json, out=out, quiet=quiet)


_PAIRS = re.compile(r"([0-9]{1,6})(?:\.\.([0-9]{1,6}))?")


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers and ranges of numbers: 1,2,5 or 1..5; none beyond a bound that no run reaches."""
    parts = [_PAIRS.fullmatch(part) for part in text.split(",")]
    numbers: list[int] = []
    for part in parts:
        first, last = (part[1], part[2] or part[1]) if part is not None else (1, 0)
        if int(last) < int(first):
            raise typer.BadParameter(
                f"'{text}' is no list of numbers, such as 1,2,5 or 1..5", param_hint="--n"
            )
        numbers += range(int(first), min(int(last), int(first) + _RANGE_MAX) + 1)
    return tuple(numbers)


@app.command()
def lgt(
    repetitions: Annotated[
        int,
        typer.Option(
            min=1, max=1_000_000, help="Of the six bases for each of the six input states."
        ),
    ] = 1000,
    seed: Seed = 1,
    profile: ProfileOption = Profile.PAPER,
    backend: BackendOption = Backend.BEHAVIOURAL,
    link: LinkOption = Link.PROMPT,
    mocked: Annotated[
        bool,
        typer.Option(
            "--mocked/--real",
            help="Entanglement for DQC: heralds with nothing entangled, as in the paper, or pairs.",
        ),
    ] = True,
    scheduler: Annotated[str, typer.Option(help="Scheduler; the paper's is fcfs.")] = "fcfs",
    config: NetworkFile = None,
    json: JsonFile = None,
    out: OutDirectory = None,
    trace: TraceFormats = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Local gate tomography, alone and while DQC runs (paper, Fig. 5)."""
    _require_a_use(quiet, json, out)
    from qnodeos.assembly import NetworkConfig, load_network
    from qnodeos.cli.lgt_run import LGT_TRACES, run_and_report
    from qnodeos.cli.run_support import trace_formats
    from qnodeos.experiments.lgt import LgtSettings

    network = (
        load_network(config, link.value) if config is not None else NetworkConfig.preset(link.value)
    )
    settings = LgtSettings(
        repetitions=repetitions,
        seed=seed,
        profile=profile.value,
        network=network.model_copy(
            update={"link": network.link.model_copy(update={"mocked": mocked})}
        ),
        scheduler=scheduler,
        backend=backend.value,
        trace_directory=out and out / LGT_TRACES,
        trace_formats=trace_formats(trace, out),
    )
    run_and_report(settings, workers=_processes(workers), json_path=json, out=out, quiet=quiet)


@app.command()
def ion(
    repetitions: Annotated[
        int,
        typer.Option(min=1, max=1_000_000, help="Repetitions of each of the seven sequences."),
    ] = 10_000,
    seed: Seed = 1,
    profile: ProfileOption = Profile.PAPER,
    backend: BackendOption = Backend.BEHAVIOURAL,
    config: Annotated[
        Path | None, typer.Option(help="YAML or JSON file of the node; the rest is as by default.")
    ] = None,
    json: JsonFile = None,
    out: OutDirectory = None,
    trace: TraceFormats = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Seven sequences on a trapped ion, through QNodeOS and without it (paper, Suppl. Inf.)."""
    _require_a_use(quiet, json, out)
    from qnodeos.assembly.ion import IonNodeConfig, load_ion_node
    from qnodeos.cli.ion_run import ION_TRACES, run_and_report
    from qnodeos.cli.run_support import trace_formats
    from qnodeos.experiments.ion import IonSettings

    settings = IonSettings(
        repetitions=repetitions,
        seed=seed,
        profile=profile.value,
        node=load_ion_node(config) if config is not None else IonNodeConfig(),
        backend=backend.value,
        trace_directory=out and out / ION_TRACES,
        trace_formats=trace_formats(trace, out),
    )
    run_and_report(settings, workers=_processes(workers), json_path=json, out=out, quiet=quiet)


def demo() -> None:
    """A short delegated quantum computation, with table and plots."""
    dqc(
        circuits_per_set=DEMO_CIRCUITS_PER_SET,
        seed=1,
        profile=Profile.PAPER,
        backend=Backend.BEHAVIOURAL,
        link=Link.PAPER,
        config=None,
        json=DEMO_DIRECTORY / "dqc.json",
        out=DEMO_DIRECTORY,
        trace=None,
        workers=0,
        quiet=False,
    )
