"""The JSON results that figures are drawn from, checked field by field.

Files may come from anywhere: a figure is drawn only from numbers that have been checked here.
Fields that no figure needs are passed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qnodeos.errors import ConfigurationError
from qnodeos.experiments.lgt_analysis import MODES, STATES
from qnodeos.files import check_readable

RESULT_BYTES_MAX: Final = 1 << 26
SETS_MAX: Final = 64
RUNS_MAX: Final = 4096

LARGEST: Final = 1e9
"""Of any number: more than an experiment can give, and still something that can be drawn."""

Count = Annotated[int, Field(ge=0, le=10**15)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Angle = Annotated[float, Field(ge=-100, le=100)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][\w ().-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Estimate(_Part):
    """A value with its standard error."""

    value: Number
    sigma: NonNegative


class Statistics(_Part):
    """Mean and standard deviation in ms, None for those of too few values."""

    mean: Number | None
    sd: NonNegative | None


class Settings(_Part):
    """What of the settings is said below a figure."""

    profile: Name | None = None


class _Result(_Part):
    seed: Annotated[int, Field(ge=0)]
    complete: bool = True
    settings: Settings = Settings()


class Stages(_Part):
    """A fidelity for every selection of circuits."""

    ssro: Estimate
    cr: Estimate
    latency: Estimate


class DqcSet(_Part):
    """The result of one pair of angles, in radians."""

    alpha: Angle
    theta: Angle
    fidelity: Stages


class Segments(_Part):
    """The segments of the live time that are drawn."""

    c1_after_delivery: Statistics
    down_client: Statistics
    client_result_to_message_sent: Statistics
    classical_communication: Statistics
    s1_after_delivery: Statistics
    server_message_to_s2_attempt: Statistics
    up_server: Statistics
    s2_qnpu: Statistics


class DqcResult(_Result):
    """Of `qnodeos experiment dqc`."""

    experiment: Literal["dqc"]
    circuits: Annotated[int, Field(ge=1, le=10**15)]
    sets: Annotated[list[DqcSet], Field(min_length=1, max_length=SETS_MAX)]
    mean_fidelity: Stages
    live_time_ms: Statistics
    segments_ms: Segments


class LgtState(_Part):
    """The fidelity of one input state."""

    state: Literal["+Z", "-Z", "+X", "-X", "+Y", "-Y"]
    fidelity: Estimate


class LgtResult(_Result):
    """Of `qnodeos experiment lgt`."""

    experiment: Literal["lgt"]
    alone: Annotated[list[LgtState], Field(max_length=len(STATES))]
    multitasked: Annotated[list[LgtState], Field(max_length=len(STATES))]
    mean_fidelity: dict[Literal["alone", "multitasked"], Estimate] = Field(default_factory=dict)
    results: Count
    results_multitasked: Count = 0

    @model_validator(mode="after")
    def _every_state_once(self) -> Self:
        for mode in MODES:
            states = [entry.state for entry in getattr(self, mode)]
            if states and sorted(states) != sorted(STATES):
                raise ValueError(f"'{mode}' must have each of {', '.join(STATES)} once, or none")
        if not (self.alone or self.multitasked):
            raise ValueError("'alone' and 'multitasked' are both empty")
        return self


class MultitaskingRun(_Part):
    """One run; None for what was not observed."""

    n: Annotated[int, Field(ge=1, le=100_000)]
    scheduler: Name
    multitasking: bool
    utilisation: Share | None
    utilisation_sigma: NonNegative | None = None
    other_process_scheduled: Share | None
    other_process_scheduled_sigma: NonNegative | None = None
    consecutive_lgt: NonNegative | None
    consecutive_lgt_sigma: NonNegative | None = None
    dqc_per_s: NonNegative
    lgt_per_s: NonNegative
    dqc_fidelity: Number | None
    dqc_fidelity_sigma: NonNegative | None = None


class MultitaskingResult(_Result):
    """Of `qnodeos experiment multitasking`."""

    experiment: Literal["multitasking"]
    seconds: Annotated[float, Field(gt=0, le=LARGEST)]
    runs: Annotated[list[MultitaskingRun], Field(min_length=1, max_length=RUNS_MAX)]

    @model_validator(mode="after")
    def _every_run_once(self) -> Self:
        seen = set()
        for run in self.runs:
            key = run.scheduler, run.n, run.multitasking
            if key in seen:
                mode = "with" if run.multitasking else "without"
                raise ValueError(
                    f"'runs' has {run.scheduler}, n = {run.n}, {mode} multitasking more than once"
                )
            seen.add(key)
        return self


Result = TypeVar("Result", bound=_Result)


def load_result(path: Path, kind: type[Result]) -> Result:
    """Read and check a result.

    Args:
        path: of the JSON file.
        kind: the model it must follow.

    Raises:
        ConfigurationError: the file cannot be read, is too large, is no JSON, or a field is
            missing or impossible; names the file and the field.
    """
    remedy = "make it anew, or choose another --data"
    check_readable(path)
    try:
        with path.open("rb") as stream:
            text = stream.read(RESULT_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read it: {error.strerror}", file=str(path)) from error
    if len(text) > RESULT_BYTES_MAX:
        raise ConfigurationError(
            f"more than RESULT_BYTES_MAX = {RESULT_BYTES_MAX} bytes; {remedy}", file=str(path)
        )
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(
            f"{first['msg'].removeprefix('Value error, ')}; {remedy}",
            file=str(path),
            field=".".join(map(str, first["loc"])) or None,
        ) from error
