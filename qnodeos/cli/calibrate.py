"""`qnodeos calibrate NAME`: find the parameters of a node, simulated or real."""

from __future__ import annotations

import dataclasses
import json as json_module
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from qnodeos.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.measurement import CalibrationResult, Measurement
    from calibration.runner import Archive, Outcome
    from qnodeos.cli.benches import Benches
    from qnodeos.cli.ion_benches import IonBenches

    AnyBenches = Benches | IonBenches

DEFAULT_DIRECTORY = Path("results/calibration")
NAMES = (
    "cr",
    "resonance",
    "rabi",
    "ssro",
    "readout-correction",
    "t-coh",
    "awg-delay",
    "fidelity-alpha",
    "ion-detection",
    "ion-frequency",
    "ion-rabi",
    "ion-preparation",
)
_ON_ION = "ion-"
"""What the names of measurements on a trapped-ion node begin with."""
ALL = "all"
_SEED = 1
_GATE_SHOTS = 500


class Node(StrEnum):
    """Nodes that have Station files."""

    CLIENT = "client"
    SERVER = "server"
    ION = "ion"


class Truth(StrEnum):
    """What a simulated node is."""

    NOMINAL = "nominal"
    DRAWN = "drawn"


def _known(name: str) -> str:
    if name not in (*NAMES, ALL):
        raise typer.BadParameter(f"no measurement {name!r}; there are {', '.join((*NAMES, ALL))}")
    return name


def calibrate(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help=f"What to measure: {', '.join((*NAMES, ALL))}.", callback=_known
        ),
    ],
    node: Annotated[
        Node | None,
        typer.Option(
            help="Which node; the names of what is measured on a trapped-ion node begin with ion-.",
            show_default="server, or ion",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the simulation.", show_default="1")
    ] = None,
    truth: Annotated[
        Truth | None,
        typer.Option(
            help="The simulated node: as a new calibration assumes it (nominal), or different, "
            "drawn by the seed (drawn: the default of 'all')."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the measurement; repeatable. The keys are in docs/calibration.md.",
        ),
    ] = None,
    shifted_copies: Annotated[
        int | None,
        typer.Option(help="t-coh: shifted copies of the decoupling pulses: 16, 8, 4, 2 or 1."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result here.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory for dataset, plots and calibration files; by default one of the "
            f"simulated truth in {DEFAULT_DIRECTORY}."
        ),
    ] = None,
    station: Annotated[
        Path | None,
        typer.Option(
            help="Station file of a real node, instead of a simulation (unverified); needs --spi."
        ),
    ] = None,
    spi: Annotated[
        str | None, typer.Option(metavar="BUS.DEVICE", help="SPI interface to a real node.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
) -> None:
    """Find parameters of an NV or trapped-ion node, and keep them in its calibration file."""
    from calibration.runner import Archive
    from qnodeos.cli.run_support import check_destinations, write_json

    node = _node(name, node)
    _check_target(station, spi, truth, seed)
    seed = _SEED if seed is None else seed
    drawn = (truth or (Truth.DRAWN if name == ALL else Truth.NOMINAL)) is Truth.DRAWN
    if shifted_copies is not None:
        if name != "t-coh":
            raise typer.BadParameter("only t-coh has shifted copies", param_hint="--shifted-copies")
        settings = [*(settings or []), f"shifted_copies={shifted_copies}"]
    if name == ALL and settings:
        raise typer.BadParameter("'all' takes no settings", param_hint="--set")
    what = None if name == ALL else _measurement(name, settings or [])
    directory = out or _directory(station, node, seed, drawn)
    check_destinations(json, None)
    console = Console(quiet=quiet)
    archive = Archive(directory / "calibration.db", directory, directory / "plots")
    # QCoDeS would log every interrupt and error with its traceback; here they are reported.
    logging.getLogger("qcodes.dataset.measurements").setLevel(logging.CRITICAL)
    try:
        with _open(
            name,
            node,
            seed=seed,
            drawn=drawn,
            calibrations=directory,
            station=station,
            spi=spi,
        ) as benches:
            _make(directory)
            try:
                if what is None:
                    document = _all(console, benches, archive, node.value)
                else:
                    document = _one(console, what, benches, archive, node.value)
            finally:
                # Of a measurement that failed it may be the reason.
                _report_lost_ticks(console, benches)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted: what was measured until then is kept as the last run in "
            f"{archive.database}, and the calibration files hold what was found before."
        )
        raise
    document = {"seed": seed if station is None else None, "simulated": station is None, **document}
    if json is not None:
        write_json(json, document)
        console.print(f"Result: {json}")
    console.print(f"Dataset, plots and calibration files: {directory}")


# --- running --------------------------------------------------------------------------------


def _open(name: str, node: Node, **options: Any) -> AbstractContextManager[AnyBenches]:
    if node is Node.ION:
        from qnodeos.cli.ion_benches import open_ion_benches

        return open_ion_benches(name, **options)
    from qnodeos.cli.benches import open_benches

    return open_benches(name, node.value, **options)


def _one(
    console: Console, what: Measurement[Any], benches: AnyBenches, archive: Archive, node: str
) -> dict[str, Any]:
    from calibration.runner import calibrate as run

    bench = benches.pair if what.on_pair else benches.nodes[node]
    assert bench is not None
    nodes = list(benches.nodes) if what.on_pair else [node]
    with console.status(f"{what.name} ..."):
        outcome = run(what, bench, archive)
    return _reported(console, outcome, benches, nodes)


def _all(console: Console, benches: AnyBenches, archive: Archive, node: str) -> dict[str, Any]:
    from calibration.runner import calibrate_pair

    names = list(benches.nodes) if benches.pair is not None else [node]
    before = {name: _gate_errors(benches.nodes[name]) for name in names}
    documents = []
    for name in names:
        for outcome in _watched(console, _series(benches.nodes[name], archive)):
            documents.append({"node": name, **_reported(console, outcome, benches, [name])})
    if benches.pair is not None:
        for outcome in _watched(console, calibrate_pair(benches.pair, archive)):
            documents.append(_reported(console, outcome, benches, names))
    after = {name: _gate_errors(benches.nodes[name]) for name in names}
    table = Table(
        title="Wrong answers to gate sequences that should give |0> or |1>", box=SIMPLE_HEAD
    )
    for column in ("node", "before", "after"):
        table.add_column(column)
    for name in names:
        table.add_row(name, f"{before[name]:.3f}", f"{after[name]:.3f}")
    console.print(table)
    return {
        "measurements": documents,
        "wrong_before": before,
        "wrong_after": after,
        "calibrations": {
            name: benches.nodes[name].calibration.model_dump(mode="json") for name in names
        },
    }


def _watched(console: Console, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    while True:
        with console.status("measuring ..."):
            outcome = next(outcomes, None)
        if outcome is None:
            return
        yield outcome


def _series(node: Any, archive: Archive) -> Iterator[Outcome]:
    """A complete calibration of one node."""
    from calibration.runner import calibrate_all, calibrate_ion

    return calibrate_ion(node, archive) if _is_ion(node) else calibrate_all(node, archive)


def _is_ion(node: Any) -> bool:
    from calibration.ion_file import IonCalibration

    return isinstance(node.calibration, IonCalibration)


def _gate_errors(node: Any) -> float:
    """Share of wrong readouts after sequences of gates whose ideal result is certain."""
    from qnodeos.qdevice.instructions import Axis, ini, msr, sqg

    if _is_ion(node):
        from qnodeos.cli.ion_benches import ion_gate_errors

        return ion_gate_errors(node, _GATE_SHOTS)

    x, y = sqg(Axis.X, 8), sqg(Axis.Y, 8)
    flip = sqg(Axis.X, 16)
    wrong = total = 0
    for gates, bit in (
        ((), 0),
        ((flip,), 1),
        ((x, x), 1),
        ((y, flip, sqg(Axis.Y, 24)), 0),
        ((x,) * 8, 0),
        ((flip, y, y), 0),
    ):
        bits = node.shots([ini(), *gates, msr()], _GATE_SHOTS).bits[:, 0]
        wrong += int((bits != bit).sum())
        total += bits.size
    return wrong / total


# --- reporting ------------------------------------------------------------------------------


def _reported(
    console: Console, outcome: Outcome, benches: AnyBenches, nodes: list[str]
) -> dict[str, Any]:
    result = outcome.result
    truth = benches.truth(result, nodes)
    console.print(_table(result, truth))
    if outcome.plot is not None:
        console.print(f"Plot: {outcome.plot}")
    elif outcome.plot_problem:
        console.print(f"No plot: {outcome.plot_problem}", markup=False)
    document = {**result.to_dict(), "nodes": nodes, "run_id": outcome.run_id, "truth": truth}
    if result.measurement == "t-coh":
        document |= {name: result.details[name] for name in ("t_coh_ms", "sigma", "shifted_copies")}
    return document


def _report_lost_ticks(console: Console, benches: AnyBenches) -> None:
    lost = 0 if benches.pacer is None else benches.pacer.lost_ticks
    if lost:
        console.print(
            f"{lost} ticks were lost: frames came so much later in all than they were due, pauses "
            "to set up instruments and fetch logs among them."
        )


def _table(result: CalibrationResult, truth: dict[str, Any]) -> Table:
    table = Table(title=f"{result.measurement} ({result.source})", box=SIMPLE_HEAD)
    for column in ("value", "found", "standard uncertainty"):
        table.add_column(column)
    if truth:
        table.add_column("simulated truth")
    for name, (value, sigma) in result.values.items():
        row = [name, f"{value:.9g}", f"{sigma:.2g}"]
        if truth:
            row.append(f"{truth[name]:.9g}" if isinstance(truth.get(name), float) else "")
        table.add_row(*row)
    return table


# --- settings -------------------------------------------------------------------------------


def _measurement(name: str, settings: list[str]) -> Measurement[Any]:
    from calibration.errors import CalibrationError
    from calibration.registry import MEASUREMENTS, measurement

    # Every measurement is a dataclass, though their common base is none.
    kind: Any = MEASUREMENTS[name]
    known = [field.name for field in dataclasses.fields(kind)]
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in known:
            raise typer.BadParameter(
                f"{setting!r}: give KEY=VALUE with one of {', '.join(known)}", param_hint="--set"
            )
        try:
            value = json_module.loads(text)
        except ValueError:
            raise typer.BadParameter(
                f"{setting!r}: the value must be a number, true, false, or a list in brackets",
                param_hint="--set",
            ) from None
        values[key] = tuple(value) if isinstance(value, list) else value
    try:
        return measurement(name, **values)
    except CalibrationError as error:
        raise ConfigurationError(
            f"{name}: {str(error).removeprefix(f'{name}: ')}; the settings are in "
            "docs/calibration.md"
        ) from error


def _node(name: str, node: Node | None) -> Node:
    """The node, if it has what is to be measured."""
    on_ion = name.startswith(_ON_ION)
    if node is None:
        return Node.ION if on_ion else Node.SERVER
    if name != ALL and on_ion != (node is Node.ION):
        raise typer.BadParameter(
            f"{name} is measured on {'a trapped-ion' if on_ion else 'an NV'} node, and "
            f"{node.value} is none",
            param_hint="--node",
        )
    return node


def _check_target(
    station: Path | None, spi: str | None, truth: Truth | None, seed: int | None
) -> None:
    """Refuse options of a simulation for a real node, and the other way round."""
    if station is None:
        if spi is not None:
            raise typer.BadParameter(
                "a simulated node has no SPI interface; give a real one's --station",
                param_hint="--spi",
            )
        return
    if spi is None:
        raise typer.BadParameter(
            "--station needs --spi BUS.DEVICE, such as 0.0", param_hint="--station"
        )
    for hint, given in (("--truth", truth), ("--seed", seed)):
        if given is not None:
            raise typer.BadParameter(
                "only simulated nodes have one; leave it out, or --station", param_hint=hint
            )


def _directory(station: Path | None, node: Node, seed: int, drawn: bool) -> Path:
    """Calibrations of one simulated truth must not be used for another."""
    if station is not None:
        return DEFAULT_DIRECTORY / node.value
    return DEFAULT_DIRECTORY / (f"simulated-drawn-{seed}" if drawn else "simulated-nominal")


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make this directory: {error.strerror}; choose another --out",
            file=str(directory),
        ) from error
