"""Latency profiles: their distributions, their bounds, and the files that come along."""

from __future__ import annotations

import math
from random import Random

import pytest
from pydantic import ValidationError

from qnodeos.assembly import PROFILES, load_profile
from qnodeos.cnpu.latency import Delay, LatencyProfile, Spikes
from qnodeos.config.loader import parse_config
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS

Z_LIMIT = 4.5
SAMPLES = 20_000


class NoRandomness(Random):
    """Fails the test if anything is drawn."""

    def random(self) -> float:
        raise AssertionError("a delay without spread drew a random number")


@pytest.mark.parametrize("mean_ms", [0.0, 0.0001, 1.5, 10_000.0])
def test_a_delay_without_spread_is_exact_and_draws_nothing(mean_ms):
    assert Delay(mean_ms=mean_ms).sample_ns(NoRandomness(1)) == round(mean_ms * 1e6)


@pytest.mark.parametrize(("mean_ms", "sd_ms"), [(1.38, 0.46), (0.25, 0.05), (5.0, 5.0), (1.0, 3.0)])
def test_a_delay_has_its_mean_and_standard_deviation(mean_ms, sd_ms):
    rng = Random(f"{mean_ms} {sd_ms}")
    delays = [Delay(mean_ms=mean_ms, sd_ms=sd_ms).sample_ns(rng) / 1e6 for _ in range(SAMPLES)]
    assert min(delays) >= 0
    mean = math.fsum(delays) / SAMPLES
    assert abs(mean - mean_ms) < Z_LIMIT * sd_ms / math.sqrt(SAMPLES)
    variance = math.fsum((delay - mean) ** 2 for delay in delays) / (SAMPLES - 1)
    # The fourth cumulant of a gamma distribution of shape k is 6 sd^4 / k.
    kurtosis = 3 + 6 * (sd_ms / mean_ms) ** 2
    assert abs(variance - sd_ms**2) < Z_LIMIT * sd_ms**2 * math.sqrt((kurtosis - 1) / SAMPLES)


def test_the_same_seed_gives_the_same_delays():
    delay = Delay(mean_ms=1, sd_ms=1)
    first, second = ([delay.sample_ns(rng) for _ in range(10)] for rng in (Random(3), Random(3)))
    assert first == second
    assert len(set(first)) == 10


def test_spikes_are_as_frequent_and_as_long_as_they_say():
    spikes = Spikes(probability=0.02, at_least_ms=5, excess_ms=15)
    rng = Random(9)
    stalls = [stall for _ in range(SAMPLES) if (stall := spikes.sample_ns(rng) / 1e6)]
    assert abs(len(stalls) - 0.02 * SAMPLES) < Z_LIMIT * math.sqrt(SAMPLES * 0.02 * 0.98)
    assert min(stalls) >= 5
    mean = math.fsum(stalls) / len(stalls)
    assert abs(mean - 20) < Z_LIMIT * 15 / math.sqrt(len(stalls))


def test_spikes_that_never_come_draw_nothing():
    assert Spikes().sample_ns(NoRandomness(1)) == 0
    assert Spikes(probability=1, at_least_ms=5).sample_ns(Random(1)) == 5_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean_ms": -1},
        {"sd_ms": -0.1},
        {"mean_ms": 1e9},
        {"mean_ms": math.nan},
        {"mean_ms": 1, "typo": 2},
    ],
)
def test_impossible_delays_are_refused(wrong):
    with pytest.raises(ValidationError):
        Delay(**wrong)


def test_a_wrong_profile_is_refused_with_its_place():
    text = "name: slow\npeer: {mean_ms: 1}\nclassical: {mean_ms: -3}\n"
    with pytest.raises(ConfigurationError, match=r"slow\.yaml:3: classical") as caught:
        parse_config(text, LatencyProfile, "slow.yaml")
    assert (caught.value.line, caught.value.field) == (3, "classical.mean_ms")


# --- the profiles of the package -----------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
def test_the_profiles_of_the_package_load(name):
    assert load_profile(name).name == name


def test_the_zero_profile_delays_nothing():
    assert load_profile("zero") == LatencyProfile(name="zero")
    excluded = {"name", "dispatch_us"}
    for delay in load_profile("zero").model_dump(exclude=excluded, exclude_none=True).values():
        assert set(delay.values()) == {0.0}


@pytest.mark.parametrize(
    ("field", "segment"),
    [
        ("result_to_message", "client_result_to_message_sent"),
        ("message_to_submit", "server_message_to_s2_attempt"),
        ("send_local", "s2_attempt_to_sent"),
    ],
)
def test_the_paper_profile_has_the_published_segments(field, segment):
    delay = getattr(load_profile("paper"), field)
    assert (delay.mean_ms, delay.sd_ms) == PUBLISHED_SEGMENTS_MS[segment]


@pytest.mark.parametrize(
    ("send", "segment"),
    [
        ("send_create", "overhead_c1"),
        ("send_receive", "overhead_s1"),
        ("send_local", "overhead_s2"),
    ],
)
def test_the_paper_profile_has_the_published_overheads(send, segment):
    # Up and down together, to the 0.03 ms by which the published numbers differ.
    profile = load_profile("paper")
    overhead_ms = getattr(profile, send).mean_ms + profile.result.mean_ms
    assert abs(overhead_ms - PUBLISHED_SEGMENTS_MS[segment][0]) <= 0.03
