"""The experiments that can be swept: their options, and the numbers that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from calibration.readout import ReadoutFidelity
from qnodeos.assembly import NodeConfig
from qnodeos.errors import ConfigurationError
from qnodeos.experiments import dqc, lgt, multitasking
from qnodeos.experiments.dqc_analysis import STAGES, DqcSetData, analyse_dqc
from qnodeos.experiments.dqc_segments import SEGMENTS
from qnodeos.experiments.lgt_analysis import MODES, STATES, analyse_lgt
from qnodeos.experiments.multitasking_analysis import summarise
from qnodeos.experiments.schedulers import SCHEDULERS
from qnodeos.experiments.sweep_parameters import Options, Parameters, Settings, Value, unit_of

_ESTIMATE: Final = ("value", "sigma")


def _is_scheduler(name: str) -> str:
    if name not in SCHEDULERS:
        raise ValueError(f"should be one of: {', '.join(SCHEDULERS)}")
    return name


_Scheduler = Annotated[str, AfterValidator(_is_scheduler)]


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
        defaults: parameters that are not as in the presets unless the sweep sets them.
    """

    name: str
    options: type[Options]
    run: Callable[[Settings, int], Mapping[str, Any]]
    outputs: Sequence[str]
    default_outputs: Sequence[str]
    defaults: Mapping[str, Value] = field(default_factory=dict)

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
        if found is not None:
            found = found[int(step)] if isinstance(found, Sequence) else found[step]
    return None if found is None else float(found)


def output_unit(path: str) -> str:
    """The unit of an output: what its name, or the group it is in, says."""
    return "s-1" if any(part.endswith("_per_s") for part in path.split(".")) else unit_of(path)


def _readout(node: NodeConfig) -> ReadoutFidelity:
    """Of the simulated node, which is known exactly."""
    return ReadoutFidelity(node.noise.readout_fidelity_0, node.noise.readout_fidelity_1, 0.0, 0.0)


# --- delegated quantum computation ------------------------------------------------------


class DqcOptions(Options):
    """Delegated quantum computation."""

    circuits_per_set: int = Field(
        1200, ge=2, le=1_000_000, description="circuits per (alpha, theta)"
    )
    scheduler: _Scheduler = Field("fcfs", description="how the QNPUs schedule")


def _run_dqc(settings: Settings, seed: int) -> Mapping[str, Any]:
    options: DqcOptions = settings.options
    run = dqc.DqcSettings(
        circuits_per_set=options.circuits_per_set,
        seed=seed,
        profile=options.profile,
        network=settings.network,
        backend=options.backend,
        latency=settings.latency,
        scheduler=SCHEDULERS[options.scheduler].policy,
    )
    parts: list[list[DqcSetData]] = [[] for _ in run.sets]
    for block in dqc.blocks_of(run):
        parts[block.set_index].append(dqc.run_block(run, block))
    sets = [dqc.merge(each) for each in parts]
    return analyse_dqc(sets, _readout(settings.network.server), seed=seed)


_DQC_STATISTICS: Final = {
    "live_time_ms": ("mean", "sd", "p50", "p90", "max"),
    "entanglement_ms": ("mean", "sd", "p50"),
    **{f"segments_ms.{name}": ("mean", "sd") for name in SEGMENTS},
}
_DQC_TOTALS: Final = (
    "circuits",
    "discarded_latency",
    *(f"mean_fidelity.{stage}.{part}" for stage in STAGES for part in _ESTIMATE),
)
_DQC: Final = SweepExperiment(
    "dqc",
    DqcOptions,
    _run_dqc,
    outputs=(
        *_DQC_TOTALS,
        *(f"{name}.{each}" for name, statistics in _DQC_STATISTICS.items() for each in statistics),
        *(
            f"sets.{index}.{path}"
            for index in range(len(dqc.SETS))
            for stage in STAGES
            for path in (f"fidelity.{stage}.value", f"fidelity.{stage}.sigma", f"kept.{stage}")
        ),
    ),
    default_outputs=(
        *_DQC_TOTALS,
        "live_time_ms.mean",
        "live_time_ms.sd",
        "entanglement_ms.mean",
    ),
)


# --- local gate tomography --------------------------------------------------------------


class LgtOptions(Options):
    """Local gate tomography."""

    link: Literal["paper", "fast", "prompt"] = Field("prompt", description="link preset")
    repetitions: int = Field(
        1000,
        ge=1,
        le=lgt.REPETITIONS_MAX,
        description="of the six bases for each of the six input states, alone and beside DQC",
    )
    scheduler: _Scheduler = Field("fcfs", description="how the QNPUs schedule")


def _run_lgt(settings: Settings, seed: int) -> Mapping[str, Any]:
    options: LgtOptions = settings.options
    run = lgt.LgtSettings(
        repetitions=options.repetitions,
        seed=seed,
        profile=options.profile,
        network=settings.network,
        scheduler=options.scheduler,
        backend=options.backend,
        latency=settings.latency,
    )
    parts = {block: lgt.run_block(run, block) for block in lgt.blocks_of(run)}
    return analyse_lgt(lgt.merged(parts, run), _readout(settings.network.client), seed=seed)


_LGT_TOTALS: Final = (
    *(f"mean_fidelity.{mode}.{part}" for mode in MODES for part in _ESTIMATE),
    *(f"subroutines_per_s.{mode}" for mode in MODES),
    "comparison.p_value",
    "dqc_circuits",
)
_LGT: Final = SweepExperiment(
    "lgt",
    LgtOptions,
    _run_lgt,
    outputs=(
        *_LGT_TOTALS,
        "results",
        "results_multitasked",
        "comparison.chi_square",
        *(f"comparison.z.{index}" for index in range(len(STATES))),
        *(f"subroutine_ms.{mode}.{each}" for mode in MODES for each in ("mean", "p50")),
        *(
            f"{mode}.{index}.{path}"
            for mode in MODES
            for index in range(len(STATES))
            for path in (
                *(f"fidelity.{part}" for part in _ESTIMATE),
                *(f"charge_checked.{part}" for part in _ESTIMATE),
                "maximum_likelihood",
            )
        ),
    ),
    default_outputs=_LGT_TOTALS,
    defaults={"link.mocked": True},
)


# --- multitasking -----------------------------------------------------------------------


class MultitaskingOptions(Options):
    """DQC and LGT at once, and one after another."""

    link: Literal["paper", "fast", "prompt"] = Field("prompt", description="link preset")
    n: int = Field(
        1, ge=1, le=multitasking.PAIRS_MAX, description="pairs of DQC programs, and LGT programs"
    )
    seconds: float = Field(
        multitasking.BLOCK_S,
        ge=multitasking.SECONDS_MIN,
        le=multitasking.SECONDS_MAX,
        description="virtual time with multitasking",
    )
    scheduler: _Scheduler = Field("fcfs", description="how the QNPUs schedule")


def _run_multitasking(settings: Settings, seed: int) -> Mapping[str, Any]:
    options: MultitaskingOptions = settings.options
    run = multitasking.MultitaskingSettings(
        pairs=(options.n,),
        schedulers=(options.scheduler,),
        seconds=options.seconds,
        seed=seed,
        profile=options.profile,
        network=settings.network,
        backend=options.backend,
        latency=settings.latency,
    )
    found = [
        multitasking.run_block(run, block, lambda: None) for block in multitasking.blocks_of(run)
    ]
    readout = _readout(settings.network.server)
    return {
        "multitasked": summarise([each.multitasked for each in found], readout),
        "alone": summarise([each.alone for each in found], readout),
    }


_RUN_TOTALS: Final = (
    "utilisation",
    "utilisation_sigma",
    "other_process_scheduled",
    "other_process_scheduled_sigma",
    "consecutive_lgt",
    "consecutive_lgt_sigma",
    "dqc_per_s",
    "lgt_per_s",
    "dqc_fidelity",
    "dqc_fidelity_sigma",
    "used_bins",
    "missed_bins",
    "blocked_bins",
)
_RUN_OTHERS: Final = (
    "consecutive_lgt_activations",
    "consecutive_lgt_nonzero",
    "live_time_ms.mean",
    "live_time_ms.sd",
    "late_ms.mean",
    "late_ms.max",
    "cnpu_wait_ms.mean",
    "cnpu_wait_ms.max",
    "server.utilisation",
    "server.used_bins",
    "server.missed_bins",
    "server.blocked_bins",
    "dqc_circuits",
    "lgt_subroutines",
    "waits",
    "virtual_s",
)
_RUNS: Final = ("multitasked", "alone")
_MULTITASKING: Final = SweepExperiment(
    "multitasking",
    MultitaskingOptions,
    _run_multitasking,
    outputs=tuple(f"{run}.{name}" for run in _RUNS for name in (*_RUN_TOTALS, *_RUN_OTHERS)),
    default_outputs=tuple(f"{run}.{name}" for run in _RUNS for name in _RUN_TOTALS),
)

EXPERIMENTS: Final[Mapping[str, SweepExperiment]] = {
    each.name: each for each in (_DQC, _LGT, _MULTITASKING)
}
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
