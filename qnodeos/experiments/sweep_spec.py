"""What a sweep is: its file, and the points that it means.

The points are numbered in the order of nested loops over the axes as they stand in the file,
the last one fastest and repetitions faster still. A point is a pure function of the plan and
its number: its seed is drawn from the sweep's by `point_seed`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from qnodeos.config.document import Document, Path, dotted, parse_document
from qnodeos.config.loader import parse_config, read_text
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.sweep_experiments import SweepExperiment, sweep_experiment
from qnodeos.experiments.sweep_parameters import (
    SEE_LIST,
    Parameter,
    Parameters,
    Value,
    close_names,
)

MAX_AXES: Final = 16
MAX_POINTS: Final = 1_000_000
MAX_NUMBERS: Final = 20_000_000
"""Most results in one sweep: points x outputs; they are held in memory, 8 bytes each."""
_SEED_BITS: Final = 63


class Range(BaseModel):
    """Values between two, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: float = Field(description="first value", allow_inf_nan=False)
    stop: float = Field(description="last value", allow_inf_nan=False)
    num: int = Field(ge=2, le=MAX_POINTS, description="how many")
    scale: Literal["linear", "log"] = Field(
        "linear", description="equal steps, or equal ratios, which needs both ends above 0"
    )

    def values(self, *, integers: bool) -> list[Value]:
        """The values; as whole numbers they are rounded.

        Raises:
            ValueError: there is no such range, or rounding makes two values one.
        """
        if self.start == self.stop:
            raise ValueError("start and stop are the same; write a list of one value")
        if self.scale == "log" and min(self.start, self.stop) <= 0:
            raise ValueError("a log scale needs start and stop above 0")
        inner = [self._at(index / (self.num - 1)) for index in range(1, self.num - 1)]
        values = [self.start, *inner, self.stop]
        if not integers:
            return list(values)
        rounded = [round(value) for value in values]
        if len(set(rounded)) < len(rounded):
            raise ValueError(
                f"{self.num} values from {self.start:g} to {self.stop:g} are not all different as "
                "whole numbers; lower num, or write a list"
            )
        return list(rounded)

    def _at(self, share: float) -> float:
        if self.scale == "log":
            return self.start * math.pow(self.stop / self.start, share)
        return self.start + (self.stop - self.start) * share


def _axis_kind(value: object) -> str | None:
    if isinstance(value, list | tuple):
        return "list"
    return "range" if isinstance(value, dict | Range) else None


_Values = Annotated[
    Annotated[tuple[Value, ...], Tag("list")] | Annotated[Range, Tag("range")],
    Discriminator(
        _axis_kind,
        custom_error_type="axis",
        custom_error_message="should be a list of values, or a range: {start, stop, num, scale}",
    ),
]


class SweepFile(BaseModel):
    """A sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str = Field(description="which experiment")
    seed: int = Field(1, ge=0, lt=1 << _SEED_BITS, description="of all randomness")
    repetitions: int | None = Field(
        None,
        ge=1,
        le=MAX_POINTS,
        description="runs of every point with seeds of their own; null: one, and no such dimension",
    )
    settings: dict[str, Any] = Field(
        {}, description="parameters that are the same at every point, dotted or nested"
    )
    grid: dict[str, _Values] = Field(
        description="parameter, or several separated by commas, to its values",
        min_length=1,
        max_length=MAX_AXES,
    )
    outputs: tuple[str, ...] | None = Field(
        None, description="numbers of the result to keep, * stands for any text", min_length=1
    )


@dataclass(frozen=True)
class Axis:
    """One dimension of the grid.

    Attributes:
        parameters: all of them take the same value; the first one names the axis.
        values: in order.
    """

    parameters: tuple[Parameter, ...]
    values: tuple[Value, ...]

    @property
    def name(self) -> str:
        """Of the dimension."""
        return self.parameters[0].path


@dataclass(frozen=True)
class PointTask:
    """A point, ready to be run anywhere.

    Attributes:
        number: of the point.
        experiment: its name.
        seed: of the experiment.
        values: of its parameters by path.
        outputs: what to keep.
    """

    number: int
    experiment: str
    seed: int
    values: Mapping[str, Value]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that has been checked.

    Attributes:
        name: of its file.
        text: of its file.
        experiment: what is run at each point.
        seed: of all randomness.
        repetitions: None for one without a dimension of its own.
        settings: what is the same at every point, by path.
        axes: of the grid.
        outputs: what is kept of each result.
    """

    name: str
    text: str
    experiment: SweepExperiment
    seed: int
    repetitions: int | None
    settings: Mapping[str, Value]
    axes: tuple[Axis, ...]
    outputs: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, and the repetitions if they are a dimension."""
        lengths = tuple(len(axis.values) for axis in self.axes)
        return lengths if self.repetitions is None else (*lengths, self.repetitions)

    @property
    def points(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def task(self, number: int) -> PointTask:
        """A point by its number."""
        values = dict(self.settings)
        rest = number // (self.repetitions or 1)
        for axis in reversed(self.axes):
            rest, index = divmod(rest, len(axis.values))
            values.update({each.path: axis.values[index] for each in axis.parameters})
        seed = point_seed(self.seed, number)
        return PointTask(number, self.experiment.name, seed, values, self.outputs)

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of everything that determines the results."""
        content = {
            "experiment": self.experiment.name,
            "seed": self.seed,
            "repetitions": self.repetitions,
            "settings": dict(sorted(self.settings.items())),
            "axes": [[[each.path for each in axis.parameters], axis.values] for axis in self.axes],
            "outputs": self.outputs,
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def point_seed(seed: int, number: int) -> int:
    """The seed of a point: the first 63 bits of SHA-256 of the text ``SEED/point NUMBER``."""
    digest = hashlib.sha256(f"{seed}/point {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)


# --- from a file to a plan --------------------------------------------------------------


def load_sweep(path: str | os.PathLike[str]) -> SweepPlan:
    """Read the file of a sweep.

    Raises:
        ConfigurationError: the file is wrong; nothing has been run.
    """
    return parse_sweep(read_text(path), os.fspath(path))


def parse_sweep(text: str, name: str) -> SweepPlan:
    """The plan of a sweep from the text of its file.

    Args:
        text: YAML or JSON, see `SweepFile`.
        name: file name, for messages.

    Raises:
        ConfigurationError: the text is wrong.
    """
    file = parse_config(text, SweepFile, name)
    return _Reader(parse_document(text, name), file).plan(text)


class _Reader:
    """Checks what the model of the file cannot: the names of parameters, and their values."""

    def __init__(self, document: Document, file: SweepFile) -> None:
        self._document = document
        self._file = file
        self._places: dict[str, Path] = {}

    def plan(self, text: str) -> SweepPlan:
        """The plan."""
        file = self._file
        with self._blaming(("experiment",)):
            experiment = sweep_experiment(file.experiment)
        parameters = experiment.parameters
        settings: dict[str, Value] = {}
        for place, value in _flat(file.settings, ("settings",)):
            for parameter in self._named(parameters, place):
                with self._blaming(place):
                    settings[parameter.path] = parameter.check(value)
        axes = tuple(
            self._axis(self._named(parameters, ("grid", key)), ("grid", key), values)
            for key, values in file.grid.items()
        )
        defaults = {
            path: value for path, value in experiment.defaults.items() if path not in self._places
        }
        plan = SweepPlan(
            name=self._document.name,
            text=text,
            experiment=experiment,
            seed=file.seed,
            repetitions=file.repetitions,
            settings=defaults | settings,
            axes=axes,
            outputs=self._outputs(experiment),
        )
        self._check_size(plan)
        return plan

    def _named(self, parameters: Parameters, place: Path) -> tuple[Parameter, ...]:
        """The parameters that are named at a place, which no other place may set too."""
        with self._blaming(place):
            paths = parameters.paths(".".join(map(str, place[1:])))
            for path in paths:
                if path in self._places:
                    line = self._document.lines.get(self._places[path])
                    raise ValueError(f"{path} is set on line {line} already; remove one")
                self._places[path] = place
        return tuple(parameters.by_path[path] for path in paths)

    def _axis(
        self, parameters: tuple[Parameter, ...], place: Path, given: Range | tuple[Value, ...]
    ) -> Axis:
        with self._blaming(place):
            if isinstance(given, Range):
                given = tuple(given.values(integers=all(each.is_integer for each in parameters)))
            if not given:
                raise ValueError("has no values; give at least one")
        values: list[Value] = []
        for index, value in enumerate(given):
            with self._blaming((*place, index) if (*place, index) in self._lines else place):
                checked = [each.check(value) for each in parameters]
                if isinstance(value, float) and math.isnan(value):
                    raise ValueError("is not a number; remove it")
                values.append(checked[0])
        with self._blaming(place):
            if len(set(values)) < len(values):
                raise ValueError("has a value twice; repetitions are for that")
        return Axis(parameters, tuple(values))

    def _outputs(self, experiment: SweepExperiment) -> tuple[str, ...]:
        if self._file.outputs is None:
            return tuple(experiment.default_outputs)
        found: dict[str, None] = {}
        for index, pattern in enumerate(self._file.outputs):
            matching = [each for each in experiment.outputs if fnmatchcase(each, pattern)]
            with self._blaming(("outputs", index)):
                if not matching:
                    close = close_names(pattern, experiment.outputs)
                    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else SEE_LIST
                    raise ValueError(f"{experiment.name} has no output {pattern[:200]!r}; {hint}")
            found.update(dict.fromkeys(matching))
        return tuple(found)

    def _check_size(self, plan: SweepPlan) -> None:
        with self._blaming(("grid",)):
            if plan.points > MAX_POINTS:
                raise ValueError(
                    f"makes {plan.points} points; at most {MAX_POINTS} are allowed: use fewer "
                    "values, or several sweeps"
                )
            if plan.points * len(plan.outputs) > MAX_NUMBERS:
                raise ValueError(
                    f"makes {plan.points} points of {len(plan.outputs)} outputs; at most "
                    f"{MAX_NUMBERS} numbers are kept: use fewer of either"
                )

    @property
    def _lines(self) -> Mapping[Path, int]:
        return self._document.lines

    @contextmanager
    def _blaming(self, place: Path) -> Iterator[None]:
        """Say where in the file a value is wrong."""
        try:
            yield
        except (ValueError, ConfigurationError) as error:
            raise ConfigurationError(
                str(error),
                file=self._document.name,
                line=self._lines.get(place),
                field=dotted(place),
            ) from None


def _flat(values: Mapping[str, Any], place: Path) -> Iterator[tuple[Path, Any]]:
    """All values that are no mapping, with their places in the document."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, (*place, key))
        else:
            yield (*place, key), value
