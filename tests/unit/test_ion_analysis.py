"""The trapped-ion demonstration: comparisons of counts, and the times of exchanges."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import kstest

from qnodeos.errors import DeviceFailureError, InsufficientDataError
from qnodeos.experiments.figures.ion import ion_figure
from qnodeos.experiments.figures.style import rendered
from qnodeos.experiments.ion_analysis import (
    IonData,
    analyse_ion,
    merge,
    standard_error,
    unit_normal,
    z_of_difference,
)
from qnodeos.experiments.ion_circuits import SEQUENCES, physical_programs
from qnodeos.experiments.ion_direct import DirectLine, Exchanges, ObservedDevice
from qnodeos.experiments.ion_table import ion_table
from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import Axis
from qnodeos.qdevice.outcomes import Outcome
from sim.ion.physics import IonPhysics
from sim.ion_device import BehaviouralIonDevice
from sim.ion_timing import IonTiming

EXPECTED = [0.001, 0.989, 0.989, 0.5, 0.5, 0.979, 0.021]
GRID = Exchanges(10, 20_000, 20_000)


def data_of(rng: np.random.Generator, n: int) -> IonData:
    first, second = ((rng.random((n, 7)) < EXPECTED).astype(np.int8) for _ in range(2))
    return IonData(first, second, GRID, 2.0)


def device(seed: int = 1, **timing: int) -> BehaviouralIonDevice:
    return BehaviouralIonDevice(IonTiming(**timing), IonPhysics.noiseless(), random.Random(seed))


def test_counts_and_their_errors():
    qnodeos = np.zeros((400, 7), dtype=np.int8)
    qnodeos[:100, 3] = 1
    direct = np.zeros((400, 7), dtype=np.int8)
    direct[:140, 3] = 1
    result = analyse_ion(IonData(qnodeos, direct, GRID, 3.0), EXPECTED, seed=4, wall_s=1.5)
    entry = result["sequences"][3]
    assert entry["name"] == "Rx(pi/2)"
    assert entry["p_dark"] == 0.25
    assert entry["sigma"] == pytest.approx(math.sqrt(0.25 * 0.75 / 400))
    assert entry["direct"]["p_dark"] == 0.35
    assert entry["z"] == pytest.approx(-0.1 / math.sqrt(2 * 0.3 * 0.7 / 400))
    assert entry["z_expected"] == pytest.approx(-10)
    assert entry["direct"]["z_expected"] == pytest.approx(-6)
    assert result["sequences"][0]["z"] == 0, "none of either is no difference"
    assert result["sequences"][0]["sigma"] == standard_error(0.5 / 400, 400)
    assert result["exchange_hz"] == 50_000
    assert result["agreement"]["direct"]["largest_z"] == pytest.approx(abs(entry["z"]))
    json.dumps(result, allow_nan=False)


def test_z_of_equal_probabilities_is_a_unit_normal():
    """500 runs of 2,000 repetitions; a fair test fails here with probability 1e-4."""
    rng = np.random.default_rng(5)
    n = 2_000
    counts = rng.binomial(n, 0.3, size=(500, 2))
    z = [z_of_difference(int(first), int(second), n) for first, second in counts]
    assert kstest(z, "norm").pvalue > 1e-4


def test_what_is_and_what_is_not_a_unit_normal():
    rng = np.random.default_rng(3)
    z = rng.standard_normal(140)
    found = unit_normal(z.tolist())
    assert found["mean"] == pytest.approx(z.mean())
    assert found["variance"] == pytest.approx((z**2).mean())
    assert min(found["p_value"], found["ks_p_value"]) > 0.01
    assert unit_normal((z + 1).tolist())["ks_p_value"] < 1e-6
    assert unit_normal((2 * z).tolist())["p_value"] < 1e-6


def test_an_error_is_never_zero():
    least = standard_error(0.005, 100)
    assert least > 0
    assert [standard_error(p, 100) for p in (0, 0.001, 1)] == pytest.approx([least] * 3)


def test_the_whole_is_its_parts():
    rng = np.random.default_rng(1)
    parts = [data_of(rng, n) for n in (30, 20)]
    whole = merge(parts)
    assert whole.repetitions == 50
    assert (whole.qnodeos == np.concatenate([p.qnodeos for p in parts])).all()
    assert (whole.exchanges, whole.elapsed_s) == (Exchanges(20, 20_000, 20_000), 4.0)


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((0, 7), 0, r"shape \(0, 7\)"),
        ((3, 6), 0, r"need \(repetitions, 7\)"),
        ((3, 7), 2, "0 or 1"),
    ],
)
def test_data_that_cannot_be(shape, value, message):
    wrong = np.full(shape, value, dtype=np.int8)
    with pytest.raises(InsufficientDataError, match=message):
        IonData(wrong, wrong, GRID, 0.0)


def test_nothing_to_analyse():
    with pytest.raises(InsufficientDataError, match="no circuits"):
        merge([])
    with pytest.raises(InsufficientDataError, match="2 expectations for 7"):
        analyse_ion(data_of(np.random.default_rng(1), 3), [0.5, 0.5], seed=1, wall_s=1.0)


def test_runs_of_different_lengths():
    long, short = (data_of(np.random.default_rng(1), n) for n in (4, 3))
    with pytest.raises(InsufficientDataError, match="4 repetitions in qnodeos, 3 in direct"):
        replace(long, direct=short.direct)


def test_table_and_figure():
    result = analyse_ion(data_of(np.random.default_rng(2), 500), EXPECTED, seed=1, wall_s=0.5)
    console = Console(width=80, record=True, quiet=False, file=None)
    with console.capture() as captured:
        console.print(ion_table(result))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    for name in SEQUENCES:
        assert name in text
    assert "50,000 Hz" in text
    assert "4.00 times real time" in text
    assert rendered(ion_figure(result), ("png",))["png"].startswith(b"\x89PNG")


# --- straight to the device ---------------------------------------------------------------


def test_the_sequences_as_instructions():
    programs = dict(zip(SEQUENCES, physical_programs(), strict=True))
    assert programs["I"] == (instructions.ini(), instructions.msr())
    assert programs["Rx(pi/2) Rx(-pi/2)"][1:3] == (
        instructions.sqg(Axis.X, 8),
        instructions.sqg(Axis.X, 24),
    )


def test_a_program_straight_at_the_device():
    line = DirectLine(device())
    flip = (instructions.ini(), instructions.sqg(Axis.X, 16), instructions.msr())
    assert line.run(flip) is Outcome.SUCCESS_ONE
    assert line.run((instructions.ini(), instructions.msr())) is Outcome.SUCCESS_ZERO
    assert 2 * (505 + 76) - 20 < line.tick < 2 * (505 + 76) + 20


def test_what_the_device_refuses():
    with pytest.raises(DeviceFailureError, match="UNSUPPORTED_REQUEST"):
        DirectLine(device()).run((instructions.sqg(Axis.X, 1),))


def test_a_device_that_never_answers(monkeypatch):
    monkeypatch.setattr("qnodeos.experiments.ion_direct.PATIENCE_TICKS", 100)
    with pytest.raises(DeviceFailureError, match="does not answer"):
        DirectLine(device(measure_ticks=200)).run((instructions.msr(),))


@pytest.mark.parametrize(
    ("ticks", "grid_ns", "shortest_ns"),
    [([], 0, 0), ([5], 0, 0), ([0, 4, 10, 40], 40_000, 80_000), ([0, 1, 7], 20_000, 20_000)],
)
def test_times_between_exchanges(ticks, grid_ns, shortest_ns):
    observed = ObservedDevice(device())
    for tick in ticks:
        observed.exchange(tick, 0)
    assert observed.exchanges == Exchanges(len(ticks), grid_ns, shortest_ns)
    assert (observed.exchanges.rate_hz is None) is (grid_ns == 0)


def test_exchanges_of_two_runs():
    joined = Exchanges(3, 40_000, 80_000).joined(Exchanges(4, 60_000, 60_000))
    assert joined == Exchanges(7, 20_000, 60_000)
    assert Exchanges(0, 0, 0).joined(Exchanges(4, 60_000, 60_000)).rate_hz == 1e9 / 60_000
