"""The experiments that can be swept: their options, and the numbers that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from calibration.readout import ReadoutFidelity
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.dqc import SETS, DqcSettings, blocks_of, merge, run_block
from qnodeos.experiments.dqc_analysis import STAGES, DqcSetData, analyse_dqc
from qnodeos.experiments.dqc_segments import SEGMENTS
from qnodeos.experiments.sweep_parameters import Options, Parameters, Settings, unit_of
from qnodeos.qnpu.scheduler import POLICIES


@dataclass(frozen=True)
class SweepExperiment:
    """An experiment that can be swept.

    Attributes:
        name: as on the command line.
        options: its own parameters.
        run: runs it with a seed, in this process; the result is that of its ``--json``.
        outputs: dotted paths of all numbers in the result that depend on the settings and
            the seed alone.
        default_outputs: those that are kept if the sweep names none.
    """

    name: str
    options: type[Options]
    run: Callable[[Settings, int], Mapping[str, Any]]
    outputs: Sequence[str]
    default_outputs: Sequence[str]

    @property
    def parameters(self) -> Parameters:
        """All that can be set."""
        return _parameters(self.options)


@cache
def _parameters(options: type[Options]) -> Parameters:
    return Parameters(options)


def number_at(result: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path of a result; None where there is no such statistic."""
    found: Any = result
    for step in path.split("."):
        found = found[int(step)] if isinstance(found, Sequence) else found[step]
    return None if found is None else float(found)


def output_unit(path: str) -> str:
    """The unit of an output: what its name, or the group it is in, says."""
    return "s-1" if path.endswith("_per_s") else unit_of(path)


# --- delegated quantum computation ------------------------------------------------------


def _is_policy(name: str) -> str:
    if name not in POLICIES:
        raise ValueError(f"should be one of: {', '.join(POLICIES)}")
    return name


class DqcOptions(Options):
    """Delegated quantum computation."""

    circuits_per_set: int = Field(
        1200, ge=2, le=1_000_000, description="circuits per (alpha, theta)"
    )
    scheduler: Annotated[str, AfterValidator(_is_policy)] = Field(
        "fcfs", description="scheduling policy of the QNPUs"
    )


def _run_dqc(settings: Settings, seed: int) -> Mapping[str, Any]:
    options: DqcOptions = settings.options
    dqc = DqcSettings(
        circuits_per_set=options.circuits_per_set,
        seed=seed,
        profile=options.profile,
        network=settings.network,
        backend=options.backend,
        latency=settings.latency,
        scheduler=options.scheduler,
    )
    parts: list[list[DqcSetData]] = [[] for _ in dqc.sets]
    for block in blocks_of(dqc):
        parts[block.set_index].append(run_block(dqc, block))
    noise = settings.network.server.noise
    readout = ReadoutFidelity(noise.readout_fidelity_0, noise.readout_fidelity_1, 0.0, 0.0)
    return analyse_dqc([merge(each) for each in parts], readout, seed=seed)


_STATISTICS: Final = {
    "live_time_ms": ("mean", "sd", "p50", "p90", "max"),
    "entanglement_ms": ("mean", "sd", "p50"),
    **{f"segments_ms.{name}": ("mean", "sd") for name in SEGMENTS},
}

_DQC: Final = SweepExperiment(
    "dqc",
    DqcOptions,
    _run_dqc,
    outputs=(
        "circuits",
        "discarded_latency",
        *(f"mean_fidelity.{stage}.{part}" for stage in STAGES for part in ("value", "sigma")),
        *(f"{name}.{each}" for name, statistics in _STATISTICS.items() for each in statistics),
        *(
            f"sets.{index}.{path}"
            for index in range(len(SETS))
            for stage in STAGES
            for path in (f"fidelity.{stage}.value", f"fidelity.{stage}.sigma", f"kept.{stage}")
        ),
    ),
    default_outputs=(
        "circuits",
        "discarded_latency",
        *(f"mean_fidelity.{stage}.{part}" for stage in STAGES for part in ("value", "sigma")),
        "live_time_ms.mean",
        "live_time_ms.sd",
        "entanglement_ms.mean",
    ),
)

EXPERIMENTS: Final[Mapping[str, SweepExperiment]] = {each.name: each for each in (_DQC,)}
"""By name."""


def sweep_experiment(name: str) -> SweepExperiment:
    """An experiment by name.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise ConfigurationError(
            f"there is no experiment {name!r} to sweep; choose one of: {', '.join(EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]
