"""`qnodeos conformance`: the applications that come with NetQASM, judged."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Final

import typer

from qnodeos.cli.experiment import MAX_WORKERS, JsonFile, Quiet, Seed

MAX_RUNS: Final = 100_000
"""Of one application."""


class Device(StrEnum):
    """Noiseless devices."""

    GENERIC = "generic"
    NV = "nv"
    ALL = "all"


def conformance(
    device: Annotated[
        Device,
        typer.Option(
            help="Noiseless device of the nodes: qubits that are all alike, or an NV electron with "
            "carbon memories."
        ),
    ] = Device.ALL,
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="This application alone, such as teleport or apps/chsh."),
    ] = None,
    seed: Seed = 1,
    runs: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_RUNS,
            help="Runs of each application, if that is more than its criterion needs.",
        ),
    ] = 0,
    json: JsonFile = None,
    workers: Annotated[
        int, typer.Option(min=0, max=MAX_WORKERS, help="Processes; 0: one per core.")
    ] = 0,
    quiet: Quiet = False,
) -> None:
    """Run the applications that come with NetQASM, and judge what they give.

    Each is run unchanged on simulated nodes, with inputs drawn for every run, and has to do what
    its protocol promises. Exit code 1 if one does not.
    """
    from qnodeos.cli.conformance_run import run_and_report

    passed = run_and_report(
        device.value,
        only=only,
        seed=seed,
        runs=runs,
        workers=workers or os.cpu_count() or 1,
        json_path=json,
        quiet=quiet,
    )
    if not passed:
        raise typer.Exit(1)
