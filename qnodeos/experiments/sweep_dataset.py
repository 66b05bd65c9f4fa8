"""The results of a sweep as one xarray dataset in a netCDF file."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qnodeos import __version__
from qnodeos.experiments.sweep_experiments import output_unit
from qnodeos.experiments.sweep_results import Status, SweepResults
from qnodeos.experiments.sweep_spec import Axis, SweepPlan, point_seed
from qnodeos.files import holding, write_files

if TYPE_CHECKING:
    import xarray

REPETITION: Final = "repetition"
ERRORS_MAX: Final = 1_000
"""Most messages of failed points kept in the file; the journal has them all."""
_PACKAGES: Final = ("netqasm", "numpy", "scipy", "xarray", "h5netcdf", "distributed")


def sweep_dataset(plan: SweepPlan, results: SweepResults, command: Sequence[str]) -> xarray.Dataset:
    """All results with where they come from.

    Args:
        plan: the sweep.
        results: of its points.
        command: that was given.

    Returns:
        A dimension per axis, named as its parameter, and ``repetition`` if the sweep has it.
        A variable per output, NaN where there is none; ``seed`` and ``status`` of each point.
    """
    import xarray as xr

    dimensions = [axis.name for axis in plan.axes]
    coordinates: dict[str, Any] = {axis.name: _coordinate(axis) for axis in plan.axes}
    if plan.repetitions is not None:
        dimensions.append(REPETITION)
        coordinates[REPETITION] = (REPETITION, np.arange(plan.repetitions))
    seeds = np.array([point_seed(plan.seed, n) for n in range(plan.points)], dtype=np.int64)
    status = {
        "long_name": "what became of the point",
        "flag_values": np.array([each.value for each in Status], dtype=np.int8),
        "flag_meanings": " ".join(each.name.lower() for each in Status),
    }
    variables: dict[str, Any] = {
        name: (dimensions, results.values[:, index].reshape(plan.shape), _about(name))
        for index, name in enumerate(plan.outputs)
    }
    variables["seed"] = (dimensions, seeds.reshape(plan.shape), {"long_name": "seed of the point"})
    variables["status"] = (dimensions, results.status.reshape(plan.shape), status)
    return xr.Dataset(variables, coordinates, _origin(plan, results, command))


def _coordinate(axis: Axis) -> tuple[str, Any, Mapping[str, str]]:
    about = {"long_name": axis.parameters[0].description}
    if not isinstance(axis.values[0], bool | str):
        about["units"] = axis.parameters[0].unit
    if len(axis.parameters) > 1:
        about["parameters"] = ", ".join(each.path for each in axis.parameters)
    return axis.name, np.array(axis.values), about


def _about(output: str) -> Mapping[str, str]:
    return {"long_name": output.replace(".", " ").replace("_", " "), "units": output_unit(output)}


def _origin(plan: SweepPlan, results: SweepResults, command: Sequence[str]) -> Mapping[str, Any]:
    errors = dict(sorted(results.errors.items())[:ERRORS_MAX])
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "title": f"{plan.experiment.name}, simulated, {plan.points} points",
        "experiment": plan.experiment.name,
        "seed": plan.seed,
        "settings": json.dumps(dict(plan.settings)),
        "sweep": plan.text,
        "sweep_digest": plan.digest,
        "complete": int(results.complete),
        "points_done": results.count(Status.DONE),
        "points_failed": results.count(Status.FAILED),
        "errors": json.dumps(errors),
        "command": " ".join(command),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": json.dumps(
            {"qnodeos": __version__, "python": platform.python_version(), **packages}
        ),
    }


def write_dataset(dataset: xarray.Dataset, path: Path) -> None:
    """Write a netCDF file as a whole or not at all.

    Args:
        dataset: what to write.
        path: of the file; replaced if there is one.

    Raises:
        ResultsNotWrittenError: it cannot be written; there is no part of it, and the one
            before is as it was.
    """
    content = dataset.to_netcdf(None, engine="h5netcdf")
    write_files(
        {path: holding(bytes(content))},
        "the journal has every result; make room and run the same command again",
    )
