"""What all calibration measurements have in common.

A measurement produces points, one or many rows at a time. They go into a `Data`, and on
the way, if wanted, into a dataset; the analysis sees only `Data`, so a run read back from
a database, an interrupted one too, is analysed like a fresh one.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import CalibrationError
from calibration.file import Calibrated
from calibration.fits import Fit

ROWS_MAX: Final = 10_000_000
"""Most rows of one run."""

SHOTS_MAX: Final = 10_000_000

_NUMBERS: Final[dict[Any, Any]] = {int: Integral, float: Real}
"""By the type a setting declares, what it may be: numpy's numbers too."""
_TYPE_NAMES: Final[dict[Any, str]] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
}

BenchT = TypeVar("BenchT")

Rows = Mapping[str, ArrayLike]
"""Values by column: numbers, or arrays of shape (n_rows,)."""


class Column(NamedTuple):
    """One column of the data.

    Attributes:
        name: an identifier.
        label: for people.
        unit: empty for none.
        setpoint: whether it was set; the others were measured.
    """

    name: str
    label: str
    unit: str = ""
    setpoint: bool = False


@dataclass(frozen=True)
class Data:
    """What a run measured, and what its analysis must know besides.

    Attributes:
        measurement: name of the measurement.
        columns: shape (n_rows,) each.
        context: settings in use, as JSON can hold them.
        source: names the run and its time.
    """

    measurement: str
    columns: Mapping[str, NDArray[np.float64]]
    context: Mapping[str, Any]
    source: str = "a run that was not recorded"

    def __getitem__(self, column: str) -> NDArray[np.float64]:
        return self.columns[column]

    @property
    def rows(self) -> int:
        """How many there are."""
        return min((column.size for column in self.columns.values()), default=0)

    def select(self, column: str, value: float) -> Data:
        """Only the rows with a value in a column."""
        keep = self.columns[column] == value
        return Data(
            self.measurement,
            {name: values[keep] for name, values in self.columns.items()},
            self.context,
            self.source,
        )


class Value(NamedTuple):
    """A result with its standard uncertainty."""

    value: float
    sigma: float


@dataclass(frozen=True)
class CalibrationResult:
    """What an analysis found.

    Attributes:
        measurement: name of the measurement.
        values: by name, with units in the names.
        source: of the data.
        report: of the fit, many lines.
        chi2: of the fit; None if there was none.
        ndof: its degrees of freedom.
        p_value: its probability.
        details: curves and numbers for plots and JSON, as JSON can hold them.
    """

    measurement: str
    values: Mapping[str, Value]
    source: str
    report: str = ""
    chi2: float | None = None
    ndof: int | None = None
    p_value: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_fit(
        cls, data: Data, fit: Fit, values: Mapping[str, Value], details: Mapping[str, Any]
    ) -> CalibrationResult:
        """A result that rests on one fit."""
        return cls(
            data.measurement,
            values,
            data.source,
            fit.report,
            fit.chi2,
            fit.ndof,
            fit.p_value,
            details,
        )

    def calibrated(self, name: str) -> Calibrated:
        """One of the values, as it goes into a calibration."""
        value, sigma = self.values[name]
        return Calibrated(value=value, sigma=sigma, source=self.source)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "measurement": self.measurement,
            "source": self.source,
            "values": {
                name: {"value": value, "sigma": sigma}
                for name, (value, sigma) in self.values.items()
            },
            "goodness": {"chi2": self.chi2, "ndof": self.ndof, "p_value": self.p_value},
            "details": dict(self.details),
            "report": self.report,
        }


class Measurement(ABC, Generic[BenchT]):
    """One calibration measurement. Its settings are the fields of the subclass.

    Attributes:
        name: in the registry and on the command line.
        columns: of its data.
        on_pair: whether its bench is a pair of nodes.
        on_ion: whether its bench is a trapped-ion node.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    on_pair: ClassVar[bool] = False
    on_ion: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the settings, before anything is opened or recorded for them.

        Raises:
            CalibrationError: a setting has a wrong type, or `check` refuses it.
        """
        check_types(self)
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise `CalibrationError` unless the settings, which have their types, make sense."""

    @abstractmethod
    def context(self, bench: BenchT) -> dict[str, Any]:
        """What the analysis must know of the bench before it is touched."""

    @abstractmethod
    def points(self, bench: BenchT) -> Iterator[Rows]:
        """Measure, point by point. Leaves the bench's calibration as it was."""

    @abstractmethod
    def analyse(self, data: Data) -> CalibrationResult:
        """Find the values.

        Raises:
            CalibrationError: the data do not support them.
            InsufficientDataError: likewise, from the counts themselves.
        """

    @abstractmethod
    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """Draw the data, and the result if there is one, into a PNG file."""

    @abstractmethod
    def update(self, calibration: Any, result: CalibrationResult) -> Any:
        """The calibration with the values found, of the kind that the bench has.

        Raises:
            CalibrationError: a value cannot be used.
        """

    def run(self, bench: BenchT, record: Callable[[Rows], None] | None = None) -> Data:
        """Measure, without analysis.

        Args:
            bench: a node, or a pair of them.
            record: is given every set of rows as it comes.

        Raises:
            CalibrationError: there are more than `ROWS_MAX` rows.
        """
        collector = Collector(self.columns)
        context = self.context(bench)
        with closing(self.points(bench)) as points:  # type: ignore[type-var]
            for rows in points:
                collector.add(rows)
                if record is not None:
                    record(rows)
        return Data(self.name, collector.columns(), context)


class Collector:
    """Rows as they come, made into columns."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._parts: dict[str, list[NDArray[np.float64]]] = {column.name: [] for column in columns}
        self._rows = 0

    def add(self, rows: Rows) -> None:
        """Append rows.

        Raises:
            CalibrationError: there are too many rows.
        """
        arrays = aligned(rows, self._parts.keys())
        self._rows += next(iter(arrays.values())).size
        if self._rows > ROWS_MAX:
            raise CalibrationError(f"a run has at most {ROWS_MAX} rows; take fewer shots or points")
        for name, array in arrays.items():
            self._parts[name].append(array)

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Everything so far."""
        return {
            name: np.concatenate(parts) if parts else np.zeros(0)
            for name, parts in self._parts.items()
        }


def aligned(rows: Rows, names: Any) -> dict[str, NDArray[np.float64]]:
    """All columns of some rows, shape (n_rows,) each; one number stands for all rows."""
    if set(rows) != set(names):
        raise CalibrationError(
            f"rows have the columns {sorted(rows)}, and the measurement {sorted(names)}"
        )
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(rows[name], float)) for name in names))
    if arrays[0].ndim != 1:
        raise CalibrationError(f"rows are numbers or one-dimensional, not {arrays[0].shape}")
    return dict(zip(names, arrays, strict=True))


def check_positive(what: str, value: float, greatest: float = SHOTS_MAX) -> None:
    """Raise `CalibrationError` unless a setting lies in 1..greatest."""
    if not 1 <= value <= greatest:
        raise CalibrationError(f"{what} is {value} and must lie in 1..{greatest:g}")


def check_within(what: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise `CalibrationError` unless a setting lies in low..high, without the latter."""
    if not low <= value < high:
        upper = "" if high == math.inf else f" and less than {high:g}"
        raise CalibrationError(f"{what} is {value:g} and must be at least {low:g}{upper}")


def check_above_zero(what: str, value: float) -> None:
    """Raise `CalibrationError` unless a setting is positive."""
    if value <= 0:
        raise CalibrationError(f"{what} is {value:g} and must be positive")


def check_types(settings: Any) -> None:
    """Raise `CalibrationError` unless the fields of a dataclass have the types they declare."""
    kinds = get_type_hints(type(settings))
    for each in fields(settings):
        value, kind = getattr(settings, each.name), kinds[each.name]
        if not _has_type(value, kind):
            shown = list(value) if isinstance(value, tuple) else value
            raise CalibrationError(f"{each.name} is {shown!r} and must be {_type_name(kind)}")


def _has_type(value: Any, kind: Any) -> bool:
    arguments = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_has_type(value, one) for one in arguments)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_has_type(one, arguments[0]) for one in value)
    if kind in _NUMBERS:
        # A bool is an int, but "true" is no number of shots.
        return (
            isinstance(value, _NUMBERS[kind])
            and not isinstance(value, bool)
            and math.isfinite(value)
        )
    return isinstance(value, kind)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is UnionType:
        return " or ".join(_type_name(one) for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is tuple:
        return "a list of numbers in brackets"
    return _TYPE_NAMES[kind]


def as_json(value: Any) -> str:
    """JSON text of numbers, text, and numpy's kinds of them."""
    return json.dumps(value, default=_plain, allow_nan=True)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
