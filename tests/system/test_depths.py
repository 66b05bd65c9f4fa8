"""The two depths of simulation agree: the same experiment, behavioural and by instruments."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qnodeos.assembly import NetworkConfig, build_two_nodes, load_profile
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.dqc import Block, DqcSettings, run_block
from sim.nv_timing import NVTiming

Z = 4.5
TICK_MS = 0.01
CIRCUITS = 100
BACKENDS = ("behavioural", "instrument")
SEGMENTS = ("c1_after_delivery", "s1_after_delivery", "s2_qnpu", "live_time", "entanglement")


@pytest.fixture(scope="module")
def runs():
    network = NetworkConfig.preset("fast")
    return {
        backend: run_block(
            DqcSettings(CIRCUITS, 5, "paper", network, backend=backend), Block(1, 0, CIRCUITS)
        )
        for backend in BACKENDS
    }


@pytest.mark.parametrize("segment", SEGMENTS)
def test_segments_take_as_long_at_both_depths(runs, segment):
    means, variances = [], []
    for backend in BACKENDS:
        values = runs[backend].segments[segment]
        means.append(values.mean())
        variances.append(values.var(ddof=1) / values.size)
    # Outcomes come in whole ticks, and where in a tick a herald falls is known on average only at
    # the behavioural depth: that is less than a tick.
    assert abs(means[0] - means[1]) < Z * math.sqrt(sum(variances)) + TICK_MS


def test_outcomes_are_as_often_right_at_both_depths(runs):
    right = []
    for backend in BACKENDS:
        data = runs[backend]
        right.append(np.mean(data.outcome == data.orientation))
    spread = math.sqrt(sum(p * (1 - p) / CIRCUITS for p in right))
    assert abs(right[0] - right[1]) < Z * spread
    assert min(right) > 0.5 + 2 * spread / math.sqrt(2)


def test_charge_checks_are_logged_for_every_circuit_at_both_depths(runs):
    for backend in BACKENDS:
        charge_ok = runs[backend].charge_ok
        assert charge_ok.shape == (CIRCUITS,)
        assert 0.8 < charge_ok.mean() <= 1


def test_without_noise_every_circuit_is_right_at_instrument_level():
    settings = DqcSettings(20, 2, "zero", NetworkConfig.noiseless(), backend="instrument")
    data = run_block(settings, Block(2, 0, 20))
    assert (data.outcome == data.orientation).all()


def test_the_same_seed_gives_the_same_result_at_instrument_level():
    network = NetworkConfig.preset("fast")
    settings = DqcSettings(6, 3, "paper", network, backend="instrument")
    first, second = (run_block(settings, Block(0, 0, 6)) for _ in range(2))
    assert first.outcome.tolist() == second.outcome.tolist()
    for name, values in first.segments.items():
        assert values.tolist() == second.segments[name].tolist()


def test_the_command_line_has_the_same_result_form(command, tmp_path):
    results = []
    for backend in BACKENDS:
        path = tmp_path / f"{backend}.json"
        done = command(
            "experiment", "dqc", "--circuits-per-set", "2", "--link", "fast", "--workers", "1",
            "--backend", backend, "--json", str(path),
        )  # fmt: skip
        assert done.code == 0, done.err
        results.append(json.loads(path.read_text("utf-8")))
    assert results[0].keys() == results[1].keys()
    assert results[1]["settings"]["backend"] == "instrument (simulated)"


def test_attempts_too_short_to_be_played_are_refused():
    link = NetworkConfig.noiseless().link.model_copy(update={"attempt_period_ns": 1_000})
    network = NetworkConfig(link=link)
    with pytest.raises(ConfigurationError, match="attempt_period_ns"):
        build_two_nodes(network, load_profile("zero"), 1, backend="instrument")
    # Nothing is left open.
    build_two_nodes(NetworkConfig(), load_profile("zero"), 1, backend="instrument").close()


def test_what_the_instruments_cannot_do_is_refused():
    network = NetworkConfig.preset("fast")
    slow = network.client.model_copy(update={"timing": NVTiming(tick_ns=20_000)})
    with pytest.raises(ConfigurationError, match="at instrument level it is 10000"):
        build_two_nodes(
            network.model_copy(update={"client": slow, "server": slow}),
            load_profile("zero"),
            1,
            backend="instrument",
        )
    with pytest.raises(ConfigurationError, match="no backend 'hardware'"):
        build_two_nodes(network, load_profile("zero"), 1, backend="hardware")
