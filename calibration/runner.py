"""A measurement from start to end: record, analyse, draw, update the calibration.

The order is such that whatever fails, what was measured before is kept: rows are recorded
as they come, the analysis comes after the run is closed, and the calibration file is
written, and the node changed, only with a good result. Drawing comes last: a plot that cannot
be made costs nothing but the plot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calibration.bench import CalibrationNode, CalibrationPair
from calibration.dataset import Run, open_run, record_result
from calibration.errors import CalibrationError, FitError
from calibration.file import calibration_path, save_calibration
from calibration.ion_bench import IonBench
from calibration.measurement import CalibrationResult, Data, Measurement
from calibration.registry import ION_ORDER, NODE_ORDER, PAIR_ORDER, measurement
from qnodeos.errors import InsufficientDataError

Clock = Callable[[], datetime]

Bench = CalibrationNode | CalibrationPair | IonBench


@dataclass(frozen=True)
class Archive:
    """Where calibrations are kept.

    Attributes:
        database: file of the QCoDeS database.
        calibrations: directory of the calibration files; None to leave them alone.
        plots: directory of the figures; None for none.
        now: the time.
    """

    database: Path
    calibrations: Path | None = None
    plots: Path | None = None
    now: Clock = lambda: datetime.now(UTC)


@dataclass(frozen=True)
class Outcome:
    """A finished measurement.

    Attributes:
        run_id: in the database.
        data: what was measured.
        result: what was found.
        plot: the figure, if one was made.
        plot_problem: why there is none although one was wanted; empty otherwise.
    """

    run_id: int
    data: Data
    result: CalibrationResult
    plot: Path | None
    plot_problem: str = ""


def calibrate(what: Measurement[Any], bench: Bench, archive: Archive) -> Outcome:
    """Measure, and use what was found.

    The nodes use the new values afterwards, and with ``archive.calibrations`` their files
    have them too.

    Args:
        what: the measurement.
        bench: a node, or a pair for a measurement on pairs.
        archive: where everything is kept.

    Raises:
        CalibrationError: the data do not support a value; they are kept as a run, which the
            message names, and nothing else has changed.
        KeyboardInterrupt: the rows until then are kept.
    """
    nodes = _nodes(what, bench)
    label = "-".join(node.name for node in nodes)
    snapshot = {node.name: node.snapshot() for node in nodes}
    with open_run(
        archive.database,
        what.name,
        label,
        what.columns,
        context=what.context(bench),
        snapshot=snapshot,
        now=archive.now(),
    ) as run:
        try:
            measured = what.run(bench, run.append)
        except CalibrationError as error:
            raise _located(error, run, archive) from error
    data = replace(measured, source=run.source)
    figure = None if archive.plots is None else archive.plots / f"{run.run_id}_{what.name}.png"
    try:
        result = what.analyse(data)
        updated = [what.update(node.calibration, result) for node in nodes]
    except InsufficientDataError as error:
        report = getattr(error, "report", "")
        record_result(archive.database, run.run_id, f"{error}\n{report}".strip())
        problem = _draw(what, data, None, figure) if data.rows else ""
        raise _located(error, run, archive, problem) from error
    record_result(archive.database, run.run_id, result)
    for node, calibration in zip(nodes, updated, strict=True):
        if calibration == node.calibration:
            continue
        if archive.calibrations is not None:
            path = calibration_path(archive.calibrations, node.name)
            calibration = save_calibration(path, calibration)  # noqa: PLW2901 (next revision)
        node.apply(calibration)
    problem = _draw(what, data, result, figure)
    return Outcome(run.run_id, data, result, None if problem else figure, problem)


def calibrate_all(
    node: CalibrationNode,
    archive: Archive,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Outcome]:
    """Everything about one node, each measurement with the values of those before.

    Args:
        node: to calibrate.
        archive: where everything is kept.
        settings: of the measurements by name, where not the defaults.

    Yields:
        The outcome of each measurement as it is done.
    """
    yield from _series(NODE_ORDER, node, archive, settings or {})


def calibrate_ion(
    node: IonBench,
    archive: Archive,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Outcome]:
    """Everything about one trapped-ion node; as `calibrate_all`."""
    yield from _series(ION_ORDER, node, archive, settings or {})


def calibrate_pair(
    pair: CalibrationPair,
    archive: Archive,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Outcome]:
    """What two calibrated nodes need together; as `calibrate_all`."""
    yield from _series(PAIR_ORDER, pair, archive, settings or {})


def _series(
    names: tuple[str, ...],
    bench: Bench,
    archive: Archive,
    settings: Mapping[str, Mapping[str, Any]],
) -> Iterator[Outcome]:
    if unknown := sorted(settings.keys() - set(names)):
        raise CalibrationError(
            f"settings for {', '.join(unknown)}, which is not among {', '.join(names)}"
        )
    # All are built before the first is run: a wrong setting must not cost a measurement.
    for what in [measurement(name, **settings.get(name, {})) for name in names]:
        yield calibrate(what, bench, archive)


def _nodes(what: Measurement[Any], bench: Any) -> tuple[Any, ...]:
    if what.on_pair != hasattr(bench, "client"):
        raise CalibrationError(
            f"{what.name} needs {'a pair of nodes' if what.on_pair else 'one node'}"
        )
    if what.on_ion != hasattr(bench, "counts"):
        raise CalibrationError(
            f"{what.name} needs {'a trapped-ion' if what.on_ion else 'an NV'} node"
        )
    return (bench.client, bench.server) if what.on_pair else (bench,)


def _draw(
    what: Measurement[Any], data: Data, result: CalibrationResult | None, figure: Path | None
) -> str:
    """Make a figure, if one is wanted; what prevented it, or nothing."""
    if figure is None:
        return ""
    try:
        what.plot(data, result, figure)
    except Exception as error:
        # Whatever a plotting library finds wrong, the result does not depend on it.
        return f"{figure} could not be drawn: {type(error).__name__}: {error}"
    return ""


def _located(
    error: InsufficientDataError, run: Run, archive: Archive, problem: str = ""
) -> CalibrationError:
    """The same error, saying where the data are, and what else went wrong."""
    message = f"{error}; the data are kept as run {run.run_id} of {archive.database}"
    if problem:
        message += f"; {problem}"
    report = getattr(error, "report", "")
    return FitError(message, report) if report else CalibrationError(message)
