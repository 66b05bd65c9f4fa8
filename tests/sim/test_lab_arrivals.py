"""Photons at the heralding station: what the time tagger sees, and `awg-delay` on it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calibration.bench import ArrivalHistogram
from calibration.errors import CalibrationError
from calibration.file import Calibrated, NodeCalibration
from calibration.instrument_bench import (
    TAGGER_DETECTORS,
    InstrumentPair,
    TickClock,
    emission_delay_ns,
    node_settings,
)
from calibration.measure_delay import AwgDelay
from drivers.nv_setup import NVSettings
from qnodeos.qdevice.outcomes import BellState
from sequences.nv_seqc import TOGGLE
from sequences.waveform_table import attempt_optical_start
from sim.entangled_state import BELL_VECTORS, PerfectProtocol, SinglePhotonProtocol
from sim.hdawg import HdawgTiming
from sim.heralding import SimulatedCpld
from sim.lab.arrivals import ASSUMED_DETECTION, PhotonArrivals
from sim.lab.bench import SimulatedBench
from sim.lab.heralding import Attempts, HeraldingStation
from sim.lab.timing import SAMPLES_PER_NS, LabTiming
from sim.link import LinkParameters
from sim.nv.physics import NVPhysics
from sim.timetagger import SimulatedTaggerLibrary

Z = 4.5
NAMES = ("client", "server")
OFFSET_NS = 8.3
"""No whole number of samples: 19.92."""
HALF_SAMPLE_NS = 0.5 / SAMPLES_PER_NS
BRIGHT = LinkParameters(protocol=SinglePhotonProtocol(p_det_a=0.1, p_det_b=0.05))
"""Far more photons than real detectors see, so that few attempts will do."""
FAITHFUL = SinglePhotonProtocol(p_det_a=0.02, p_det_b=0.02)
ATTEMPTS = 60_000


@contextmanager
def laboratory(
    link: LinkParameters = BRIGHT, offset_ns: float = OFFSET_NS, seed: int = 5
) -> Iterator[SimulatedBench]:
    calibrations = {name: NodeCalibration(node=name) for name in NAMES}
    # With all lines, over which the table averages alpha.
    hyperfine_hz = NVPhysics().hyperfine_hz
    perfect = NVPhysics.noiseless().model_copy(update={"hyperfine_hz": hyperfine_hz})
    physics = dict.fromkeys(NAMES, perfect)
    timing = LabTiming(arrival_offset_ns=offset_ns)
    with SimulatedBench(physics, calibrations, link, timing, seed) as bench:
        yield bench


def measured(bench: SimulatedBench) -> Any:
    what = AwgDelay(attempts=ATTEMPTS)
    return what.analyse(what.run(bench.pair))


def apply(bench: SimulatedBench, result: Any) -> None:
    for node in bench.benches.values():
        node.apply(AwgDelay().update(node.calibration, result))


def assert_near(value: Any, truth: float, sigma_max: float) -> None:
    assert abs(value.value - truth) < Z * value.sigma
    assert 0 < value.sigma < sigma_max


def true_delays_ns(bench: SimulatedBench) -> list[float]:
    """From the toggle edge of a batch to the entry on the connectors, as really played."""
    station = bench.simulation.laboratory.station
    first: dict[int, float] = {}
    add = station.add

    def adding(node: int, attempts: Attempts) -> None:
        first.setdefault(node, attempts.arrival_sample)
        add(node, attempts)

    station.add = adding  # type: ignore[method-assign]
    bench.pair.arrival_histogram("client", 1)
    del station.add
    delays = []
    for index, name in enumerate(NAMES):
        node = bench.simulation.nodes[name]
        settings = node.instruments.settings
        assert settings is not None
        optical = attempt_optical_start(settings.table)
        edges = list(node.lab_node._hardware.edges)
        toggles = [
            new.cycle for old, new in itertools.pairwise(edges) if (old.word ^ new.word) & TOGGLE
        ]
        flight_ns = LabTiming().photon_flight_ns
        # The last edge ends the attempts, the one before began them.
        delays.append((first[index] - optical) / SAMPLES_PER_NS - flight_ns - toggles[-2])
    return delays


def heralded_fidelity(bench: SimulatedBench) -> float:
    """Of the state that the two spins get with the next herald, with its Bell state."""
    station = bench.simulation.laboratory.station
    match, heralds = station.match, []

    def matching() -> Any:
        herald = match()
        if herald is not None:
            rho = herald.spins[0].state.density_matrix()
            vector = BELL_VECTORS[herald.bell]
            heralds.append(float(np.real(vector.conj() @ rho @ vector)))
        return herald

    station.match = matching  # type: ignore[method-assign]
    bench.pair.pairs([], [], 1)
    del station.match
    (fidelity,) = heralds
    return fidelity


# --- the measurement on simulated instruments ------------------------------------------------


def test_awg_delay_finds_the_delays_and_makes_photons_coincide():
    with laboratory() as bench:
        result = measured(bench)
        delays_ns = true_delays_ns(bench)
        known = HdawgTiming()
        latency = (
            known.dio_latency_samples + known.play_latency_samples + known.output_latency_samples
        )
        for name, delay_ns in zip(NAMES, delays_ns, strict=True):
            assert_near(result.values[f"{name}_dio_to_output_ns"], delay_ns, 0.2)
            # The rest: lines are sampled now and then, and the sequencer takes some cycles.
            rest_ns = delay_ns - LabTiming().dio_cable_ns - latency / SAMPLES_PER_NS
            assert 0 <= rest_ns < 50
        assert_near(result.values["server_attempt_offset_ns"], OFFSET_NS, 0.2)
        assert_near(result.values["client_attempt_offset_ns"], -OFFSET_NS, 0.2)

        apply(bench, result)
        shifts_ns = [bench.benches[name].emission_ns[1] for name in NAMES]
        error_ns = Z * result.values["client_attempt_offset_ns"].sigma
        assert shifts_ns[1] == 0
        assert abs(shifts_ns[0] - OFFSET_NS) < HALF_SAMPLE_NS + error_ns
        # The delays of the AWGs are as they were, and so is what has to be made up for.
        again = measured(bench)
        assert_near(again.values["client_dio_to_output_ns"], delays_ns[0], 0.2)
        assert_near(again.values["server_attempt_offset_ns"], OFFSET_NS, 0.2)
        apply(bench, again)
        assert abs(bench.benches["client"].emission_ns[1] - OFFSET_NS) < HALF_SAMPLE_NS + error_ns


def test_the_node_whose_photons_are_late_may_be_the_first():
    with laboratory(offset_ns=-OFFSET_NS) as bench:
        result = measured(bench)
        assert_near(result.values["server_attempt_offset_ns"], -OFFSET_NS, 0.2)
        apply(bench, result)
        late_ns = [bench.benches[name].emission_ns[1] for name in NAMES]
        assert late_ns[0] == 0
        assert late_ns[1] == pytest.approx(OFFSET_NS, abs=HALF_SAMPLE_NS + 1)


def test_the_heralded_fidelity_comes_back_when_photons_coincide():
    link = LinkParameters(protocol=FAITHFUL)
    with laboratory(link, offset_ns=0) as bench:
        best = heralded_fidelity(bench)
    assert best == pytest.approx(FAITHFUL.fidelity, abs=0.01)
    with laboratory(link) as bench:
        poor = heralded_fidelity(bench)
        result = measured(bench)
        apply(bench, result)
        restored = heralded_fidelity(bench)
    # The coherence goes with the root of the visibility, the fidelity with the coherence.
    half_lives = 2 * LabTiming().lifetime_ns
    lost = FAITHFUL.coherence * (1 - math.exp(-OFFSET_NS / half_lives))
    assert best - poor == pytest.approx(lost, rel=0.01)
    assert lost > 0.09
    error_ns = HALF_SAMPLE_NS + Z * result.values["client_attempt_offset_ns"].sigma
    assert best - restored < FAITHFUL.coherence * error_ns / half_lives
    assert restored > poor


def test_photons_are_binomial_and_exponential_and_nothing_is_heralded():
    with laboratory(offset_ns=0) as bench:
        station = bench.simulation.laboratory.station
        heralds = station.heralds
        histogram = bench.pair.arrival_histogram("server", ATTEMPTS)
        assert station.heralds == heralds
        assert not station.blocked
        settings = bench.benches["server"].instruments.settings
        assert settings is not None
        made = -(-ATTEMPTS // settings.attempts_per_batch) * settings.attempts_per_batch
        probability = 0.05 * NodeCalibration(node="server").alpha.value
        spread = math.sqrt(made * probability * (1 - probability))
        photons = histogram.counts.sum()
        # The microwave pulse makes alpha but for what 14N does to it.
        assert abs(photons - made * probability) < Z * spread + 0.02 * photons
        delay_ns = true_delays_ns(bench)[1]
        times = histogram.first_ns + np.arange(histogram.counts.size) + 0.5
        mean_ns = (times * histogram.counts).sum() / photons - histogram.expected_ns
        lifetime_ns = LabTiming().lifetime_ns
        assert abs(mean_ns - delay_ns - lifetime_ns) < Z * lifetime_ns / math.sqrt(photons)
        window = bench.benches["client"].instruments.station.heralding.window_delay_ns
        assert window() == 0


def test_heralds_do_not_depend_on_the_time_tagger():
    found = []
    for measures in (False, True):
        with laboratory(LinkParameters(protocol=FAITHFUL), seed=9) as bench:
            if measures:
                bench.pair.arrival_histogram("client", 1)
                bench.pair.arrival_histogram("server", 1)
            shots = bench.pair.pairs([], [], 6)
            found.append((shots.heralds.tolist(), shots.attempts.tolist()))
    assert found[0] == found[1]


def test_what_goes_wrong_is_said_and_put_right():
    with laboratory() as bench:
        client, server = bench.benches.values()
        pair = InstrumentPair(client, server, TickClock())
        with pytest.raises(CalibrationError, match="no time tagger"):
            pair.arrival_histogram("client", 1)
        heralding = client.instruments.station.heralding
        heralding.window_delay_ns(7)
        server.instruments.station.awg.stop(0)
        with pytest.raises(CalibrationError, match=r"answered .*HARDWARE_FAILURE"):
            bench.pair.arrival_histogram("client", 1)
        assert heralding.window_delay_ns() == 7
        assert not bench.simulation.laboratory.station.blocked


@pytest.mark.parametrize(("offset_ns", "delay_ns"), [(8.0, 0.0), (-8.0, 8.0), (0.0, 0.0)])
def test_only_the_node_whose_photons_are_early_waits(offset_ns, delay_ns):
    calibration = NodeCalibration(node="x", attempt_offset_ns=Calibrated(value=offset_ns))
    assert emission_delay_ns(calibration) == delay_ns
    base = NVSettings()
    settings = node_settings(calibration, base)
    waits = base.table.attempt.alpha_to_optical_ns + delay_ns
    assert settings.table.attempt == replace(base.table.attempt, alpha_to_optical_ns=waits)


# --- the station by itself ---------------------------------------------------------------------


def station(
    protocol: Any = FAITHFUL, timing: LabTiming | None = None
) -> tuple[HeraldingStation, SimulatedTaggerLibrary, Any]:
    """A station with a time tagger whose histogram starts with the first node's marker."""
    timing = timing or LabTiming()
    cpld = SimulatedCpld()
    made = HeraldingStation(LinkParameters(protocol=protocol), timing, random.Random(1), cpld)
    library = SimulatedTaggerLibrary()
    made.arrivals = PhotonArrivals(library, (1, 2), protocol, timing.lifetime_ns, "1")
    tagger = library.createTimeTagger()
    clicks = library.Combiner(tagger, TAGGER_DETECTORS).getChannel()
    return made, library, library.Histogram(tagger, clicks, 1, 1_000, 100_000)


def group(count: int, alpha: float = 1.0, arrival_sample: float = 2_400.0) -> Attempts:
    return Attempts(arrival_sample, (48, 240), 13_200, count, alpha, 0)


def total(histogram: Any) -> int:
    return int(histogram.getData().sum())


@pytest.mark.parametrize("node", [0, 1])
def test_one_node_alone_has_photons_and_no_heralds(node):
    made, _, histogram = station(SinglePhotonProtocol(p_det_a=0.5, p_det_b=0.25))
    made.toggle(0, 0, True)
    made.add(node, group(10, alpha=0.0))
    assert total(histogram) == 0
    for _ in range(100):
        made.add(node, group(10))
    assert made.match() is None
    probability = (0.5, 0.25)[node]
    spread = math.sqrt(1_000 * probability * (1 - probability))
    assert abs(total(histogram) - 1_000 * probability) < Z * spread
    places = np.flatnonzero(histogram.getData())
    # Arrival of the first after 1 us, and of the tenth nine periods later.
    assert places.min() >= 1_000
    assert places.max() < 1_000 + 9 * 5_500 + 300


def test_photons_of_a_blocked_node_do_not_arrive_and_attempts_do_not_herald():
    made, _, histogram = station(PerfectProtocol(success_probability=1.0))
    made.toggle(0, 0, True)
    made.blocked = (1,)
    made.add(1, group(100_000))
    assert total(histogram) == 0
    made.add(0, group(100_000))
    assert made.match() is None
    assert made.attempts == 100_000
    assert made.attempts_to_herald() > 10**9
    expected = 100_000 * ASSUMED_DETECTION
    # Not all of them within the 100 us of the histogram: every attempt in 5.5 us.
    assert total(histogram) <= expected + Z * math.sqrt(expected)
    made.blocked = ()
    for node in (0, 1):
        made.add(node, group(1, arrival_sample=1e10))
    herald = made.match()
    assert herald is not None
    assert isinstance(herald.bell, BellState)


def test_both_detectors_and_both_edges_of_a_marker_are_told():
    made, library, _ = station()
    told: list[tuple[int, int]] = []
    library.arrive = lambda channel, time_ps: told.append((channel, time_ps))  # type: ignore[method-assign]
    made.toggle(0, 3, True)
    made.toggle(1, 4, False)
    assert told == [(1, 3_000), (-2, 4_000)]
    made.add(0, group(4_000))
    assert {channel for channel, _ in told[2:]} == set(TAGGER_DETECTORS)


def test_photons_of_the_second_node_come_later_than_its_gate_expects():
    """A gate of 100 ns opened 20 ns before; 80 ns later the photon misses it."""
    for offset_ns, is_heralded in ((79.0, True), (81.0, False), (-19.0, True), (-21.0, False)):
        made, _, _ = station(
            PerfectProtocol(success_probability=1.0), LabTiming(arrival_offset_ns=offset_ns)
        )
        made.cpld.answer("W 2 200")
        made.add(0, group(1))
        made.add(1, group(1, arrival_sample=2_400.0 - offset_ns * SAMPLES_PER_NS))
        assert (made.match() is not None) is is_heralded


def test_a_histogram_of_the_bench_is_of_the_bench():
    """The type that measurements see, not the instrument's."""
    with laboratory() as bench:
        histogram = bench.pair.arrival_histogram("client", 1)
    assert isinstance(histogram, ArrivalHistogram)
    assert histogram.counts.size == 5_500
