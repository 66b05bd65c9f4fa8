"""Sweep files: what they mean, and what each mistake is told."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.assembly import NetworkConfig, load_profile
from qnodeos.errors import ConfigurationError
from qnodeos.experiments import sweep_experiments
from qnodeos.experiments.sweep_cluster import CONNECT_S, NO_WORKERS_S
from qnodeos.experiments.sweep_experiments import (
    EXPERIMENTS,
    SweepExperiment,
    number_at,
    output_unit,
    sweep_experiment,
)
from qnodeos.experiments.sweep_parameters import Options, Value
from qnodeos.experiments.sweep_results import run_point
from qnodeos.experiments.sweep_spec import (
    MAX_AXES,
    MAX_NUMBERS,
    MAX_POINTS,
    PointTask,
    Range,
    load_sweep,
    parse_sweep,
    point_seed,
)
from sim.entangled_state import PerfectProtocol, SinglePhotonProtocol

ROOT = Path(__file__).parents[2]

TEXT = """\
experiment: dqc
seed: 7
settings:
  link: prompt
  profile: zero
  circuits_per_set: 2
  nodes:
    noise: {gate_depolarising: 0}
grid:
  link.protocol.alpha_a, link.protocol.alpha_b: {start: 0.01, stop: 0.16, num: 3, scale: log}
  client.noise.coherence_time_ms: [5, .inf]
repetitions: 2
outputs: [mean_fidelity.*.value, live_time_ms.mean]
"""


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new)


def test_points_are_nested_loops_with_repetitions_fastest():
    plan = parse_sweep(TEXT, "s.yaml")
    assert plan.shape == (3, 2, 2)
    assert plan.points == 12
    alphas, times = (axis.values for axis in plan.axes)
    assert alphas == pytest.approx((0.01, 0.04, 0.16))
    expected = [(a, t) for a, t, _ in product(alphas, times, range(2))]
    tasks = [plan.task(number) for number in range(plan.points)]
    for task, (alpha, time_ms) in zip(tasks, expected, strict=True):
        assert task.values["link.protocol.alpha_a"] == alpha
        assert task.values["link.protocol.alpha_b"] == alpha
        assert task.values["client.noise.coherence_time_ms"] == time_ms
        assert task.values["server.noise.gate_depolarising"] == 0
    assert len({task.seed for task in tasks}) == plan.points
    assert [axis.name for axis in plan.axes] == [
        "link.protocol.alpha_a",
        "client.noise.coherence_time_ms",
    ]


def test_settings_are_the_presets_with_the_changes():
    plan = parse_sweep(changed("[5, .inf]", "[5]"), "s.yaml")
    settings = plan.experiment.parameters.settings(plan.task(0).values, "point 0")
    network = settings.network
    assert network.link.attempt_period_ns == NetworkConfig.preset("prompt").link.attempt_period_ns
    protocol = network.link.protocol
    assert isinstance(protocol, SinglePhotonProtocol)
    assert (protocol.alpha_a, protocol.alpha_b) == (0.01, 0.01)
    assert network.client.noise.coherence_time_ms == 5
    assert network.client.noise.gate_depolarising == network.server.noise.gate_depolarising == 0
    assert (
        network.client.noise.readout_fidelity_0 == NetworkConfig().client.noise.readout_fidelity_0
    )
    assert settings.latency == load_profile("zero")
    assert settings.options.circuits_per_set == 2


def test_a_delay_of_the_profile_and_another_kind_of_protocol():
    parameters = sweep_experiment("dqc").parameters
    values: dict[str, Value] = {"profile.classical.mean_ms": 3.0, "link.protocol.kind": "perfect"}
    settings = parameters.settings(values, "point 0")
    paper = load_profile("paper")
    assert settings.latency.classical.mean_ms == 3.0
    assert settings.latency.classical.sd_ms == paper.classical.sd_ms
    assert settings.latency.peer == paper.peer
    assert isinstance(settings.network.link.protocol, PerfectProtocol)


def test_seeds_are_as_documented():
    # sha256(b"7/point 5").digest()[:8], less its last bit
    assert point_seed(7, 5) == parse_sweep(TEXT, "s.yaml").task(5).seed == 6200945080496072698
    assert 0 <= point_seed(2**63 - 1, MAX_POINTS) < 2**63


def test_without_repetitions_there_is_no_such_dimension():
    plan = parse_sweep(changed("repetitions: 2\n", ""), "s.yaml")
    assert plan.shape == (3, 2)
    assert plan.task(5).values["client.noise.coherence_time_ms"] == math.inf


def test_the_digest_knows_what_matters():
    digest = parse_sweep(TEXT, "s.yaml").digest
    assert parse_sweep("# the same\n" + TEXT, "other.yaml").digest == digest
    for old, new in (
        ("seed: 7", "seed: 8"),
        ("circuits_per_set: 2", "circuits_per_set: 4"),
        ("[5, .inf]", "[6, .inf]"),
        ("repetitions: 2", "repetitions: 3"),
        (", live_time_ms.mean", ""),
    ):
        assert parse_sweep(changed(old, new), "s.yaml").digest != digest


# --- ranges -----------------------------------------------------------------------------


@given(
    st.floats(1e-6, 1e6),
    st.floats(1e-6, 1e6),
    st.integers(2, 50),
    st.sampled_from(["linear", "log"]),
)
def test_ranges_have_their_ends_and_their_number(start, stop, num, scale):
    if start == stop:
        return
    values = Range(start=start, stop=stop, num=num, scale=scale).values(integers=False)
    assert len(values) == num
    assert (values[0], values[-1]) == (start, stop)
    assert all(min(start, stop) * (1 - 1e-9) <= v <= max(start, stop) * (1 + 1e-9) for v in values)


def test_ranges_of_whole_numbers_are_rounded():
    assert Range(start=2, stop=100, num=4, scale="log").values(integers=True) == [2, 7, 27, 100]
    text = changed("[5, .inf]", "[5]").replace(
        "client.noise.coherence_time_ms: [5]",
        "link.attempts_per_batch: {start: 1, stop: 9, num: 3}",
    )
    values = parse_sweep(text, "s.yaml").axes[1].values
    assert values == (1, 5, 9)
    assert all(type(value) is int for value in values)


# --- mistakes ---------------------------------------------------------------------------

MISTAKES = {
    "unknown parameter": (
        "alpha_a,",
        "alpa_a,",
        10,
        "no parameter 'link.protocol.alpa_a'; did you mean 'link.protocol.alpha_a'",
    ),
    "wrong group": (
        "client.noise.coher",
        "link.noise.coher",
        11,
        "did you mean 'client.noise.coherence_time_ms' or 'nodes.noise.coherence_time_ms'",
    ),
    "nothing like it": ("client.noise.coherence_time_ms", "zzz", 11, "`qnodeos sweep --list"),
    "no name": ("client.noise.coherence_time_ms", '""', 11, "there is no parameter ''"),
    "a group": ("link.protocol.alpha_a,", "link.protocol,", 10, "is a group; name one of"),
    "twice in a key": (
        "link.protocol.alpha_b",
        "link.protocol.alpha_a",
        10,
        "names a parameter twice",
    ),
    "unknown setting": (
        "gate_depolarising",
        "gate_depolarizing",
        8,
        "did you mean 'nodes.noise.gate_depolarising'",
    ),
    "set twice": (
        "client.noise.coherence_time_ms: [5",
        "client.noise.gate_depolarising: [0.1",
        11,
        "client.noise.gate_depolarising is set on line 8 already",
    ),
    "wrong type": ("[5, .inf]", "[5, '6']", 11, "ms[1]: should be a valid number, not '6'"),
    "true is no number": (
        "[5, .inf]",
        "[5, true]",
        11,
        "ms[1]: should be a valid number, not True",
    ),
    "out of range": ("[5, .inf]", "[5, -6]", 11, "greater than or equal to 0.000001, not -6"),
    "not a number": ("[5, .inf]", "[5, .nan]", 11, "ms[1]"),
    "no values": ("[5, .inf]", "[]", 11, "has no values; give at least one"),
    "one value": ("[5, .inf]", "5", 11, "should be a list of values, or a range"),
    "same value": ("[5, .inf]", "[5, 5.0]", 11, "has a value twice"),
    "range of one": ("num: 3", "num: 1", 10, "num: should be greater than or equal to 2"),
    "endless range": ("stop: 0.16", "stop: .inf", 10, "stop: should be a finite number"),
    "log from 0": ("start: 0.01", "start: 0", 10, "a log scale needs start and stop above 0"),
    "range of nothing": ("start: 0.01", "start: 0.16", 10, "start and stop are the same"),
    "unknown scale": ("scale: log", "scale: lgo", 10, "scale: should be 'linear' or 'log'"),
    "word in a range": ("num: 3", "nmu: 3", 10, "num: is required but missing"),
    "unknown preset": (
        "profile: zero",
        "profile: none",
        5,
        "should be 'paper', 'prepared' or 'zero'",
    ),
    "unknown experiment": (
        "experiment: dqc",
        "experiment: dqk",
        1,
        "choose one of: dqc, lgt, multitasking",
    ),
    "unknown field": ("repetitions", "repetition", 12, "did you mean 'repetitions'"),
    "unknown output": (
        "live_time_ms.mean",
        "live_time.mean",
        13,
        "dqc has no output 'live_time.mean'; did you mean 'live_time_ms.mean'",
    ),
    "pattern of nothing": ("mean_fidelity.*", "fidelity.*", 13, "has no output 'fidelity.*"),
    "too many points": ("repetitions: 2", "repetitions: 200000", 9, "makes 1200000 points"),
    "too many repetitions": ("repetitions: 2", "repetitions: 2000000", 12, "less than or equal to"),
    "too large a seed": ("seed: 7", "seed: 9223372036854775808", 2, "seed"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_told_with_file_line_and_remedy(mistake):
    old, new, line, told = mistake
    with pytest.raises(ConfigurationError) as caught:
        parse_sweep(changed(old, new), "s.yaml")
    message = str(caught.value)
    assert told in message
    assert f"s.yaml:{line}:" in message or f"  line {line}:" in message


def test_an_empty_grid_and_too_many_axes():
    with pytest.raises(ConfigurationError, match=r"s\.yaml:2: grid: .*at least 1 item"):
        parse_sweep("experiment: dqc\ngrid: {}\n", "s.yaml")
    with pytest.raises(ConfigurationError, match="grid: is required but missing"):
        parse_sweep("experiment: dqc\n", "s.yaml")
    axes = list(sweep_experiment("dqc").parameters.by_path)[: MAX_AXES + 1]
    with pytest.raises(ConfigurationError, match=f"at most {MAX_AXES} items"):
        parse_sweep(
            "experiment: dqc\ngrid:\n" + "".join(f"  {path}: [0]\n" for path in axes), "s.yaml"
        )


def test_a_range_that_rounding_would_repeat():
    with pytest.raises(ConfigurationError, match="not all different as whole numbers"):
        parse_sweep(
            "experiment: dqc\ngrid:\n  circuits_per_set: {start: 2, stop: 4, num: 9}\n", "s.yaml"
        )


# --- experiments ------------------------------------------------------------------------


def numbers_in(result, prefix=""):
    for key, value in result.items() if isinstance(result, dict) else enumerate(result):
        if isinstance(value, dict | list):
            yield from numbers_in(value, f"{prefix}{key}.")
        elif not isinstance(value, str):
            yield f"{prefix}{key}"


SMALL: dict[str, dict[str, Value]] = {
    "dqc": {"circuits_per_set": 2, "link": "prompt", "profile": "zero"},
    "lgt": {"repetitions": 1, "scheduler": "combined"},
    "multitasking": {"seconds": 1.0, "n": 2},
}
# The bound is that of the default network, counts are raw data, and the rest is no result.
NO_OUTPUT = re.compile(
    r"seed|wall_s|latency_bound_ms|sets\.\d\.(alpha|theta)|.*\.(zeros|shots)\..*"
    r"|comparison\.degrees_of_freedom"
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_outputs_are_the_numbers_of_the_result(name):
    experiment = sweep_experiment(name)
    result = experiment.run(experiment.parameters.settings(SMALL[name], "test"), 1)
    found = {path for path in numbers_in(result) if not NO_OUTPUT.fullmatch(path)}
    # A missing statistic of several numbers is one None.
    groups = {path for path in found - set(experiment.outputs) if number_at(result, path) is None}
    known = set(experiment.outputs)
    assert found - groups == {path for path in known if not path.startswith(tuple(groups))}
    for path in experiment.outputs:
        number_at(result, path)


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        # All 12 circuits are over the live time that is allowed.
        ("dqc", "discarded_latency", 12),
        # Six subroutines, five delays between them.
        ("lgt", "subroutines_per_s.alone", pytest.approx(6 / (5 * 0.4), rel=0.1)),
        ("multitasking", "multitasked.lgt_subroutines", pytest.approx(2 / 0.4, abs=1)),
    ],
)
def test_delays_of_the_profile_reach_the_programs(name, output, expected):
    values = {
        **SMALL[name],
        "scheduler": "fcfs",
        "profile": "zero",
        "profile.classical.mean_ms": 400.0,
        "profile.result.mean_ms": 400.0,
    }
    experiment = sweep_experiment(name)
    result = experiment.run(experiment.parameters.settings(values, "test"), 1)
    assert number_at(result, output) == expected


def test_what_is_no_number_is_none(monkeypatch):
    def run(settings, seed):
        return {"a": math.inf, "b": math.nan, "c": 1}

    toy = SweepExperiment("toy", Options, run, ("a", "b", "c"), ("a",))
    monkeypatch.setitem(sweep_experiments.EXPERIMENTS, "toy", toy)
    assert run_point(PointTask(0, "toy", 1, {}, ("a", "b", "c"))).values == (None, None, 1.0)


def test_too_many_numbers():
    text = changed("[mean_fidelity.*.value, live_time_ms.mean]", "['*']")
    with pytest.raises(
        ConfigurationError, match=r"s\.yaml:9: grid: makes 600000 points of .* outp"
    ):
        parse_sweep(text.replace("repetitions: 2", "repetitions: 100000"), "s.yaml")


def test_numbers_are_found_by_path():
    result = {"a": [{"b": 3}, {"b": None}], "c": None, "d": True}
    paths = ("a.0.b", "a.1.b", "c.value.deep", "d")
    assert [number_at(result, path) for path in paths] == [3.0, None, None, 1.0]


def test_entanglement_beside_lgt_is_mocked_unless_the_sweep_says_otherwise():
    text = "experiment: lgt\ngrid: {repetitions: [1, 2]}\n"
    assert parse_sweep(text, "s").task(0).values["link.mocked"] is True
    off = parse_sweep(text + "settings: {link.mocked: false}\n", "s")
    assert off.task(0).values["link.mocked"] is False
    swept = parse_sweep(text.replace("{rep", "{link.mocked: [false, true], rep"), "s")
    assert [swept.task(n).values["link.mocked"] for n in range(4)] == [False, False, True, True]


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_default_outputs_are_outputs(experiment):
    assert set(experiment.default_outputs) <= set(experiment.outputs)
    assert len(set(experiment.outputs)) == len(experiment.outputs)


def test_units():
    parameters = sweep_experiment("dqc").parameters
    assert parameters.by_path["schedule.bin_ms"].unit == "ms"
    assert parameters.by_path["client.timing.gate_ticks"].unit == "ticks"
    assert parameters.by_path["link.protocol.alpha_a"].unit == "1"
    assert output_unit("live_time_ms.mean") == "ms"
    assert output_unit("alone.dqc_per_s") == output_unit("subroutines_per_s.alone") == "s-1"
    assert output_unit("alone.virtual_s") == "s"
    assert output_unit("mean_fidelity.ssro.value") == "1"


def test_a_point_that_cannot_be_is_a_result():
    task = PointTask(3, "dqc", 1, {"schedule.bin_ms": 0.5}, ("circuits",))
    result = run_point(task)
    assert result == run_point(task)
    assert result.error is not None
    assert result.error.startswith("ConfigurationError: point 3: ")
    assert "do not fit a bin of schedule.bin_ms = 0.5" in result.error


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "sweeps").glob("*.yaml")), ids=str)
def test_example_sweeps_load(path):
    assert load_sweep(path).points > 1


def test_there_are_examples():
    if (ROOT / "examples").is_dir():
        assert len(list((ROOT / "examples" / "sweeps").glob("*.yaml"))) >= 2


# --- the page ---------------------------------------------------------------------------

PAGE = ROOT / "docs" / "sweeps.md"
needs_page = pytest.mark.skipif(not PAGE.exists(), reason="not installed with the package")


@needs_page
def test_the_file_on_the_page_loads():
    (text,) = re.findall(r"```yml\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    assert parse_sweep(text, "page").shape == (8, 3, 2)


@needs_page
def test_the_error_on_the_page_is_a_real_one():
    (message,) = re.findall(r"```\n(sweep\.yaml.*)\n```", PAGE.read_text("utf-8"))
    text = "experiment: dqc\nseed: 1\ngrid:\n  client.noise.gate_depolarizing: [0, 0.01]\n"
    with pytest.raises(ConfigurationError) as caught:
        parse_sweep(text, "sweep.yaml")
    assert str(caught.value) == message


@needs_page
def test_the_bounds_on_the_page_are_those_of_the_code():
    text = PAGE.read_text("utf-8")
    assert f"At most {MAX_AXES} axes, {MAX_POINTS:,} points, and {MAX_NUMBERS:,} numbers" in text
    assert f"does not answer within {CONNECT_S} s, or has no worker for {NO_WORKERS_S} s" in text
