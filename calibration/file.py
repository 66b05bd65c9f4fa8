"""The calibration of a node, and the file that keeps it.

`<node>.calibration.yaml` is YAML, every value with its uncertainty and where it comes
from. It is replaced as a whole, never edited in place, so a reader sees the old or the
new revision; the one before stays beside it as `<node>.calibration.previous.yaml`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar, overload

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML

from calibration.errors import CalibrationError
from calibration.readout import ReadoutFidelity
from qnodeos.config import load_config
from qnodeos.errors import ConfigurationError, InsufficientDataError
from qnodeos.files import holding, write_together
from sequences.decoupling import ASSUMED_SPACING_SAMPLES
from sequences.errors import SequenceError
from sequences.pulses import PulseCalibration
from sequences.waveform_table import TableSettings

FORMAT_VERSION: Final = 1
"""Of the file; a file of a newer one is refused."""

ASSUMED: Final = "assumed"

RANGES: Final = {
    "mw_frequency_hz": (1e6, 12.75e9),
    "mw_power_dbm": (-120.0, 25.0),
    "readout_us": (1.0, 1e6),
    "cr_us": (1.0, 1e6),
    "cr_threshold": (0.0, 100_000.0),
    "alpha": (0.0, 1.0),
}
"""What the instruments take (`instruments.microwave`, `instruments.nv_controller`)."""
MAX_T_COH_MS: Final = 1e6

NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Calibrated(BaseModel):
    """A value with its standard uncertainty and its origin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(allow_inf_nan=False, description="the value, in the unit of the name")
    sigma: float = Field(0.0, ge=0, allow_inf_nan=False, description="standard uncertainty")
    source: str = Field(
        ASSUMED,
        min_length=1,
        max_length=200,
        description="`assumed`, or the run of the dataset and its time, or where else it is from",
    )


def _assumed(value: float) -> Any:
    return Field(default_factory=lambda: Calibrated(value=value))


class CalibrationFile(BaseModel):
    """What the calibrations of all kinds of nodes have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(FORMAT_VERSION, ge=1, le=FORMAT_VERSION, description="of the format")
    node: NodeName = Field(description="name of the node this belongs to")
    revision: int = Field(0, ge=0, description="counts up with every change of the file")

    def replaced(self, **changes: Any) -> Self:
        """A copy with other values, checked like a file.

        Raises:
            CalibrationError: a value is outside its range or cannot be played.
        """
        try:
            return type(self).model_validate({**dict(self), **changes})
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, detail['loc'])) or 'together'}: {detail['msg']}"
                for detail in error.errors(include_url=False)
            )
            raise CalibrationError(
                f"calibration of {self.node} cannot take {', '.join(changes)}: {problems}"
            ) from error


FileT = TypeVar("FileT", bound=CalibrationFile)


class NodeCalibration(CalibrationFile):
    """Everything about an NV node that is measured rather than chosen, and what it rests on.

    Defaults are assumed unless they name a source.
    """

    mw_frequency_hz: Calibrated = _assumed(2.0e9)
    mw_power_dbm: Calibrated = _assumed(0.0)
    pi_ns: float = Field(PulseCalibration.pi_ns, gt=0, le=1e3, description="length, pi pulse")
    pi_half_ns: float = Field(PulseCalibration.pi_half_ns, gt=0, le=1e3, description="pi/2 pulse")
    pi_amplitude: Calibrated = _assumed(PulseCalibration.pi_amplitude)
    pi_half_amplitude: Calibrated = _assumed(PulseCalibration.pi_half_amplitude)
    readout_us: Calibrated = _assumed(190.0)
    f0: Calibrated = Field(
        default_factory=lambda: Calibrated(
            value=0.95, source="Delle Donne et al., Nature 639, 321 (2025)"
        )
    )
    f1: Calibrated = Field(
        default_factory=lambda: Calibrated(
            value=0.995, source="Delle Donne et al., Nature 639, 321 (2025)"
        )
    )
    cr_us: Calibrated = _assumed(15.0)
    cr_threshold: Calibrated = _assumed(3.0)
    ini_state: Literal[0, 1] = Field(
        0, description="state INI pumps to; 1 only while the readout is calibrated"
    )
    spacing_samples: int = Field(ASSUMED_SPACING_SAMPLES, description="of the decoupling pulses")
    shifted_copies: Literal[16, 8, 4, 2, 1] = Field(16, description="of each decoupling pulse")
    alpha: Calibrated = _assumed(0.2256)
    dio_to_output_ns: Calibrated = _assumed(0.0)
    attempt_offset_ns: Calibrated = _assumed(0.0)
    t_coh_ms: Calibrated = Field(
        default_factory=lambda: Calibrated(
            value=13.0, source="Delle Donne et al., Nature 639, 321 (2025)"
        )
    )

    @field_validator(*RANGES)
    @classmethod
    def _in_range(cls, calibrated: Calibrated, info: ValidationInfo) -> Calibrated:
        assert info.field_name is not None
        low, high = RANGES[info.field_name]
        if not low <= calibrated.value <= high:
            raise ValueError(
                f"the value must lie in {low:.12g}..{high:.12g}, and is {calibrated.value:.12g}"
            )
        return calibrated

    @field_validator("t_coh_ms")
    @classmethod
    def _positive(cls, calibrated: Calibrated) -> Calibrated:
        if not 0 < calibrated.value <= MAX_T_COH_MS:
            raise ValueError(
                f"the value must be positive and at most {MAX_T_COH_MS:g}, and is "
                f"{calibrated.value:g}"
            )
        return calibrated

    @field_validator("cr_threshold")
    @classmethod
    def _whole(cls, calibrated: Calibrated) -> Calibrated:
        if not calibrated.value.is_integer():
            raise ValueError(f"a threshold is a whole number of photons, not {calibrated.value}")
        return calibrated

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            _ = self.to_table_settings().plan
            self.to_readout_fidelity()
        except (SequenceError, InsufficientDataError) as error:
            raise ValueError(str(error)) from error
        return self

    def to_table_settings(self) -> TableSettings:
        """What the waveform table of this node is built from."""
        return TableSettings(
            calibration=PulseCalibration(
                pi_amplitude=self.pi_amplitude.value,
                pi_half_amplitude=self.pi_half_amplitude.value,
                pi_ns=self.pi_ns,
                pi_half_ns=self.pi_half_ns,
            ),
            spacing_samples=self.spacing_samples,
            shifted_copies=self.shifted_copies,
            alphas=(self.alpha.value,),
        )

    def to_readout_fidelity(self) -> ReadoutFidelity:
        """F0 and F1 for the correction of counts."""
        return ReadoutFidelity(self.f0.value, self.f1.value, self.f0.sigma, self.f1.sigma)


# --- the file ---------------------------------------------------------------------------


def calibration_path(directory: Path, node: str) -> Path:
    """Where the calibration of a node is kept."""
    return directory / f"{node}.calibration.yaml"


def previous_path(path: Path) -> Path:
    """Where the revision before the present one is kept."""
    return path.with_name(f"{path.name.removesuffix('.yaml')}.previous.yaml")


@overload
def load_calibration(path: Path, node: str) -> NodeCalibration: ...
@overload
def load_calibration(path: Path, node: str, kind: type[FileT]) -> FileT: ...
def load_calibration(
    path: Path, node: str, kind: type[CalibrationFile] = NodeCalibration
) -> CalibrationFile:
    """Read the calibration file of a node.

    Args:
        path: the file.
        node: whose it must be.
        kind: of calibration.

    Raises:
        ConfigurationError: the file cannot be read, is of a newer format, belongs to another
            node, or its content is wrong; names the line and the field.
    """
    load_config(path, _header(node))
    return load_config(path, kind)


def save_calibration(path: Path, calibration: FileT) -> FileT:
    """Write the next revision, and keep the present one beside it.

    Args:
        path: the file; made, with its directory, if it does not exist.
        calibration: what to write, based on the revision in the file.

    Returns:
        What the file now holds: the same with the next revision.

    Raises:
        ConfigurationError: the file cannot be read, belongs to another node, or has changed
            since ``calibration`` was read from it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        present = load_calibration(path, calibration.node, type(calibration))
        if present.revision != calibration.revision:
            raise ConfigurationError(
                f"is now revision {present.revision}, and the change rests on revision "
                f"{calibration.revision}; read the file again and repeat the change",
                file=os.fspath(path),
                field="revision",
            )
        write_together({previous_path(path): holding(path.read_bytes())})
    following = calibration.replaced(revision=calibration.revision + 1)
    text = _Text()
    YAML().dump(following.model_dump(mode="json"), text)
    write_together({path: holding(b"".join(text.parts))})
    return following


class _Text:
    """What the YAML emitter writes to."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, part: bytes) -> None:
        self.parts.append(part)


def _header(expected_node: str) -> type[BaseModel]:
    """The fields that tell whether a file is for us, whatever else it holds."""

    class Header(BaseModel):
        model_config = ConfigDict(extra="ignore")

        version: int
        node: str

        @field_validator("version")
        @classmethod
        def _known(cls, version: int) -> int:
            if not 1 <= version <= FORMAT_VERSION:
                raise ValueError(
                    f"this program reads calibrations up to format {FORMAT_VERSION}; use a newer "
                    "program or calibrate again"
                )
            return version

        @field_validator("node")
        @classmethod
        def _ours(cls, node: str) -> str:
            if node != expected_node:
                raise ValueError(f"this calibration must be that of node {expected_node!r}")
            return node

    return Header
