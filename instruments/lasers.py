"""Lasers behind acousto-optic modulators (AOMs), as powers instead of voltages.

A laser runs all the time; a voltage at its AOM's driver says how much of it reaches the sample.
`AomCurve` is what a power meter found at some voltages. `Laser` has one power for every use of
the laser (reading out, checking the charge, pumping), because the program on the real-time
controller switches between them by itself; it writes each through a QCoDeS parameter that takes
the voltage. `AdwinLaser` makes those parameters from elements of an ADwin's DATA array.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from qcodes.instrument import Instrument, InstrumentChannel
from qcodes.parameters import DelegateParameter, Parameter, ParameterBase
from qcodes.validators import Numbers

from instruments.adwin import AdwinProII
from instruments.errors import ConfigurationRefused, InstrumentInUse

MAX_POINTS: Final = 1_000
"""Bound on the points of a curve."""
MAX_LEVELS: Final = 16
"""Bound on the uses of one laser."""
MAX_OUTPUT_V: Final = 9.99
"""What an ADwin's analogue output reaches with code 65535 at 3277 codes per volt."""
_ROUNDING: Final = 1e-9
"""Relative error of going from power to voltage and back."""


@dataclass(frozen=True)
class AomCurve:
    """Power on the sample against voltage, interpolated linearly; measured by calibration.

    Attributes:
        points: (voltage in V, power in uW), both increasing from point to point.

    Raises:
        ConfigurationRefused: fewer than two points, or they do not increase.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.points) <= MAX_POINTS:
            raise ConfigurationRefused(
                f"an AOM curve of {len(self.points)} points; it takes 2 to {MAX_POINTS}"
            )
        table = np.asarray(self.points, float)
        if table.shape != (len(self.points), 2) or not np.all(np.isfinite(table)):
            raise ConfigurationRefused("an AOM curve takes pairs of numbers (V, uW)")
        if np.any(np.diff(table, axis=0) <= 0) or np.any(table[0] < 0):
            raise ConfigurationRefused(
                "voltage and power of an AOM curve must increase from point to point, from 0 or "
                "more; measure it again, or leave out points"
            )

    @classmethod
    def from_points(cls, points: Sequence[Sequence[float]]) -> AomCurve:
        """A curve from pairs (V, uW), such as those of a Station file."""
        pairs = []
        for point in points:
            if len(point) != 2:
                raise ConfigurationRefused(f"{list(point)} is no point (V, uW) of an AOM curve")
            pairs.append((float(point[0]), float(point[1])))
        return cls(tuple(pairs))

    def power_uw(self, voltage_v: float) -> float:
        """Power at a voltage.

        Raises:
            ConfigurationRefused: the curve does not reach so far.
        """
        return self._interpolate(voltage_v, 0, "V")

    def voltage_v(self, power_uw: float) -> float:
        """Voltage for a power.

        Raises:
            ConfigurationRefused: the curve does not reach so far.
        """
        return self._interpolate(power_uw, 1, "uW")

    def _interpolate(self, value: float, column: int, unit: str) -> float:
        table = np.asarray(self.points)
        low, high = table[0, column], table[-1, column]
        slack = _ROUNDING * high
        if not low - slack <= value <= high + slack:
            raise ConfigurationRefused(
                f"the AOM curve covers {low:g} to {high:g} {unit}, not {value:g}"
            )
        return float(np.interp(value, table[:, column], table[:, 1 - column]))


class LaserLevel(InstrumentChannel):
    """One use of a laser, and how bright the laser is then.

    Args:
        parent: the laser.
        name: of the use.
        output: takes the voltage.

    Attributes:
        voltage_v: at the AOM's driver.
        power_uw: on the sample.
    """

    def __init__(self, parent: Laser, name: str, output: ParameterBase) -> None:
        super().__init__(parent, name)
        curve, lowest_v = parent.curve, parent.curve.points[0][0]
        self.voltage_v: DelegateParameter = self.add_parameter(
            "voltage_v",
            DelegateParameter,
            source=output,
            unit="V",
            label=f"{name} voltage",
            vals=Numbers(lowest_v, parent.max_v),
            docstring="voltage at the driver of the AOM",
        )
        self.power_uw: Parameter = self.add_parameter(
            "power_uw",
            get_cmd=lambda: curve.power_uw(self.voltage_v.get()),
            set_cmd=lambda power_uw: self.voltage_v.set(curve.voltage_v(power_uw)),
            unit="uW",
            label=f"{name} power",
            vals=Numbers(curve.points[0][1], curve.power_uw(parent.max_v)),
            docstring="power on the sample, by the AOM's curve",
        )


class Laser(Instrument):
    """A laser with one or several levels, at `laser.<level>`, see `LaserLevel`.

    Args:
        name: of the QCoDeS instrument.
        outputs: for every level a parameter that takes the voltage.
        curve: of the AOM.
        max_v: highest voltage allowed; None for the last of the curve.
        **kwargs: for `qcodes.Instrument`.

    Attributes:
        curve: of the AOM.
        max_v: highest voltage allowed.
        levels: all levels by name.

    Raises:
        ConfigurationRefused: no level or too many, or the curve does not reach `max_v`.
        InstrumentInUse: there is an instrument of this name.
    """

    def __init__(
        self,
        name: str,
        outputs: Mapping[str, ParameterBase],
        curve: AomCurve,
        max_v: float | None = None,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        _check_levels(name, outputs)
        lowest_v, highest_v = curve.points[0][0], curve.points[-1][0]
        self.max_v = highest_v if max_v is None else float(max_v)
        if not lowest_v < self.max_v <= min(highest_v, MAX_OUTPUT_V):
            raise ConfigurationRefused(
                f"{name}: max_v = {self.max_v:g} V is outside {lowest_v:g} to "
                f"{min(highest_v, MAX_OUTPUT_V):g} V, what curve and output can do"
            )
        super().__init__(name, **kwargs)
        self.curve = curve
        self.levels: dict[str, LaserLevel] = {
            level: self.add_submodule(level, LaserLevel(self, level, output))
            for level, output in outputs.items()
        }

    def get_idn(self) -> dict[str, str | None]:
        """Nobody can be asked behind an AOM."""
        return {"vendor": None, "model": "laser with AOM", "serial": None, "firmware": None}

    def off(self) -> None:
        """Set all levels to the lowest voltage of the curve."""
        for level in self.levels.values():
            level.voltage_v.set(self.curve.points[0][0])


class AdwinLaser(Laser):
    """A laser whose voltages are elements of a FLOAT array of an ADwin, in volts.

    The elements exist once the ADwin has loaded the program that declares the array.

    Args:
        name: of the QCoDeS instrument.
        adwin: the opened ADwin, or its name in QCoDeS.
        levels: for every level the index of its element.
        curve: pairs (V, uW), see `AomCurve`.
        data: number of the array.
        max_v: see `Laser`.
        nominal_v: voltages of the levels as the laboratory uses them; `max_v` for those that
            are not named.
        **kwargs: for `qcodes.Instrument`.

    Attributes:
        nominal_v: for every level.

    Raises:
        ConfigurationRefused: there is no such ADwin, a voltage is too high or of no level, or
            see `Laser`.
        InstrumentInUse: see `Laser`.
    """

    def __init__(
        self,
        name: str,
        adwin: AdwinProII | str,
        levels: Mapping[str, int],
        curve: AomCurve | Sequence[Sequence[float]],
        *,
        data: int,
        max_v: float | None = None,
        nominal_v: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        if isinstance(adwin, str):
            adwin = _find_adwin(name, adwin)
        _check_levels(name, levels)
        self._adwin, self._elements = adwin, [f"{name}_{level}_v" for level in levels]
        made = curve if isinstance(curve, AomCurve) else AomCurve.from_points(curve)
        highest_v = made.points[-1][0] if max_v is None else float(max_v)
        self.nominal_v = _nominal(name, levels, nominal_v or {}, made.points[0][0], highest_v)
        try:
            outputs = {
                level: adwin.add_data_element(
                    element, data, index, unit="V", vals=Numbers(0, MAX_OUTPUT_V)
                )
                for element, (level, index) in zip(self._elements, levels.items(), strict=True)
            }
            super().__init__(name, outputs, made, max_v, **kwargs)
        except BaseException:
            self._withdraw()
            raise

    def to_nominal(self) -> None:
        """Set all levels to their nominal voltages; light comes when the program asks for it."""
        for level, volts in self.nominal_v.items():
            self.levels[level].voltage_v.set(volts)

    def close(self) -> None:
        """Close the instrument; the ADwin keeps the voltages."""
        # QCoDeS empties the object when it closes it, and may close it twice.
        if "_elements" in self.__dict__:
            self._withdraw()
        super().close()

    def _withdraw(self) -> None:
        # An ADwin that was closed first has no parameters any more.
        parameters = self._adwin.__dict__.get("parameters", {})
        for element in self._elements:
            if element in parameters:
                self._adwin.remove_parameter(element)


def _find_adwin(laser: str, name: str) -> AdwinProII:
    if Instrument.exist(name):
        found = Instrument.find_instrument(name)
        if isinstance(found, AdwinProII):
            return found
    raise ConfigurationRefused(
        f"{laser}: there is no ADwin {name!r}; open it before its lasers, or correct the name"
    )


def _nominal(
    laser: str,
    levels: Mapping[str, int],
    given: Mapping[str, float],
    lowest_v: float,
    highest_v: float,
) -> dict[str, float]:
    for level, volts in given.items():
        if level not in levels:
            raise ConfigurationRefused(f"{laser}: nominal_v: there is no level {level!r}")
        if not lowest_v <= volts <= highest_v:
            raise ConfigurationRefused(
                f"{laser}: nominal_v: {volts:g} V for {level} is outside {lowest_v:g} to "
                f"{highest_v:g} V"
            )
    return {level: float(given.get(level, highest_v)) for level in levels}


def _check_levels(name: str, levels: Mapping[str, Any]) -> None:
    if not 1 <= len(levels) <= MAX_LEVELS:
        raise ConfigurationRefused(f"{name}: {len(levels)} levels; a laser has 1 to {MAX_LEVELS}")
    for level in levels:
        if not level.isidentifier():
            raise ConfigurationRefused(f"{name}: {level!r} cannot be the name of a level")
