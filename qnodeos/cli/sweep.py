"""`qnodeos sweep`: an experiment at every point of a grid of its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MAX_WORKERS = 256
OUT_DIRECTORY = Path("results")
TLS = ("--tls-ca", "--tls-cert", "--tls-key")


def sweep(
    spec: Annotated[
        Path | None, typer.Argument(help="YAML or JSON file: the experiment and the grid.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="NetCDF file for the result; the points done so far are kept beside it, in "
            "FILE.points.jsonl. Default: results/SPEC.nc."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_WORKERS,
            help="Processes on this machine; 0: none but this one. Default: one per core.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Use the workers of this dask scheduler: tcp://HOST:PORT on this machine, "
            "tls://HOST:PORT anywhere.",
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(TLS[0], help="Certificate of the authority of the cluster.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(TLS[1], help="Our certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(TLS[2], help="Its private key.")] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin anew; what was there is kept as FILE.old-N."),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run points that failed once more.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write a summary here.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No report and no progress bar.")] = False,
    list_: Annotated[
        str | None,
        typer.Option(
            "--list", metavar="EXPERIMENT", help="Print its parameters and outputs, and stop."
        ),
    ] = None,
) -> None:
    """Run an experiment at every point of a grid of its parameters.

    The same command goes on where it was interrupted.
    """
    if list_ is not None:
        _print_names(list_)
        return
    if spec is None:
        raise typer.BadParameter(
            "name the file of a sweep, or --list EXPERIMENT", param_hint="SPEC"
        )
    if scheduler is not None and workers is not None:
        raise typer.BadParameter(
            "the scheduler has workers of its own: leave this out", param_hint="--workers"
        )
    files = [tls_ca, tls_cert, tls_key]
    if any(files) and not (scheduler is not None and all(files)):
        raise typer.BadParameter(
            "all three of them go together, and with --scheduler", param_hint=" ".join(TLS)
        )
    from qnodeos.cli.sweep_run import Place, run_and_report
    from qnodeos.experiments.sweep_spec import load_sweep
    from qnodeos.transport import TlsFiles

    tls = None
    if tls_ca is not None and tls_cert is not None and tls_key is not None:
        tls = TlsFiles(certificate=tls_cert, key=tls_key, authority=tls_ca)
    run_and_report(
        load_sweep(spec),
        Place(workers, scheduler, tls),
        out=out or OUT_DIRECTORY / f"{spec.stem}.nc",
        restart=restart,
        retry_failed=retry_failed,
        json_path=json,
        quiet=quiet,
    )


def _print_names(name: str) -> None:
    from qnodeos.experiments.sweep_experiments import output_unit, sweep_experiment
    from qnodeos.experiments.sweep_parameters import BOTH_NODES

    experiment = sweep_experiment(name)
    parameters = experiment.parameters
    width = max(map(len, parameters.by_path))
    typer.echo(f"Parameters of {name}; `{BOTH_NODES}.` is `client.` and `server.` at once")
    for path, parameter in parameters.by_path.items():
        unit = "" if parameter.unit == "1" else f" [{parameter.unit}]"
        typer.echo(f"  {path:{width}}  {parameter.description}{unit}")
    typer.echo("Outputs; * are kept if the sweep names none")
    for path in experiment.outputs:
        mark = "*" if path in experiment.default_outputs else " "
        unit = output_unit(path)
        typer.echo(f"{mark} {path}" + ("" if unit == "1" else f" [{unit}]"))
