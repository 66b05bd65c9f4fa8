"""The link: heralding statistics, synchronisation, preparation."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from qnodeos.errors import LimitError
from qnodeos.qdevice.outcomes import BellState
from sim.entangled_state import BELL_VECTORS, PerfectProtocol, SinglePhotonProtocol
from sim.link import Batch, EntanglementLink, LinkParameters
from sim.pauli import Qubit
from tests.sim.bench import Z_LIMIT, assert_mean, assert_proportion

P_MIN = 2 * stats.norm.sf(Z_LIMIT)


class Ends:
    """A link with two ends, asked for batches directly."""

    def __init__(self, parameters: LinkParameters, seed: int = 1) -> None:
        self.link = EntanglementLink(parameters, random.Random(seed))
        self.called: list[tuple[int, Batch]] = []
        self.ends = [
            self.link.attach(lambda batch: self.called.append((0, batch))),
            self.link.attach(lambda batch: self.called.append((1, batch))),
        ]

    def ask(self, end: int, tick: int, ready_tick: int | None = None) -> Batch:
        """The second request, which starts the batch."""
        answer = self.ends[end].request(tick, tick if ready_tick is None else ready_tick)
        assert isinstance(answer, Batch)
        return answer

    def batch(self, tick: int) -> Batch:
        """A batch that both ends ask for at the same tick, as the second end sees it."""
        self.ends[0].request(tick, tick)
        return self.ask(1, tick)

    def pair(self, tick: int, first: int = 0) -> tuple[BellState, list[Qubit]]:
        """The state heralded by a batch that must succeed, and the spins in their order."""
        self.ends[first].request(tick, tick)
        answer = self.ask(1 - first, tick)
        called, other = self.called[-1]
        assert called == first
        assert other[:2] == answer[:2]
        assert answer.bell is not None
        assert answer.qubit is not None
        assert other.qubit is not None
        spins = [other.qubit, answer.qubit]
        return answer.bell, spins if first == 0 else spins[::-1]


def test_the_heralded_attempt_is_geometric():
    p = 0.02
    ends = Ends(
        LinkParameters(
            attempt_period_ns=10_000,
            attempts_per_batch=100_000,
            protocol=PerfectProtocol(success_probability=p),
        ),
        seed=5,
    )
    attempts = [ends.batch(tick).tick - tick for tick in range(0, 20_000_000, 1000)]
    assert min(attempts) == 1
    assert_mean(attempts, 1 / p, (1 - p) ** 0.5 / p)
    edges = np.array([1, 3, 6, 11, 21, 31, 51, 81, 121, 201])
    observed = np.histogram(attempts, [*edges, 10**9])[0]
    survival = np.array([*(1 - p) ** (edges - 1.0), 0.0])
    expected = -np.diff(survival) * len(attempts)
    assert stats.chisquare(observed, expected).pvalue > P_MIN


def test_a_herald_is_announced_at_the_first_tick_after_it():
    parameters = LinkParameters(
        attempt_period_ns=5_500,
        attempts_per_batch=3,
        protocol=PerfectProtocol(success_probability=0.5),
    )
    ends = Ends(parameters)
    batches = [ends.batch(tick) for tick in range(0, 40_000, 100)]
    # Attempts end after 5.5, 11 and 16.5 us; a batch that fails ends with the third.
    offsets = {(batch.tick % 100, batch.bell is not None) for batch in batches}
    assert offsets == {(1, True), (2, True), (2, False)}


def test_a_batch_of_one_attempt_succeeds_as_often_as_an_attempt():
    protocol = PerfectProtocol(success_probability=0.3)
    ends = Ends(LinkParameters(attempts_per_batch=1, protocol=protocol), seed=3)
    assert_proportion(sum(ends.batch(tick).bell is not None for tick in range(5000)), 5000, 0.3)


def test_batches_succeed_as_often_as_the_parameters_say():
    parameters = LinkParameters.fast()
    ends = Ends(parameters, seed=6)
    heralds = sum(ends.batch(tick).bell is not None for tick in range(0, 10_000_000, 1000))
    assert_proportion(heralds, 10_000, parameters.batch_success_probability)
    expected = 1 - (1 - parameters.protocol.success_probability) ** 1_790
    assert parameters.batch_success_probability == pytest.approx(expected, rel=1e-9)
    assert ends.link.batches == 10_000
    assert ends.link.heralds == heralds


def test_the_published_rate_is_two_percent_per_bin_after_thirty_ms():
    parameters = LinkParameters.paper()
    per_bin = parameters.batch_success_probability
    assert per_bin == pytest.approx(0.0205, abs=0.0005)
    assert -(-parameters.batch_ns // 10_000) == 880
    ends = Ends(parameters, seed=7)
    bins_needed: list[int] = []
    bin_start = 0
    while len(bins_needed) < 2_000:
        used = 0
        herald = False
        while not herald:
            herald = ends.batch(bin_start).bell is not None
            used += 1
            bin_start += 1000
        bins_needed.append(used)
    assert min(bins_needed) > 3
    assert_mean(bins_needed, 3 + 1 / per_bin, (1 - per_bin) ** 0.5 / per_bin)


def test_a_fast_link_takes_thirty_ms_per_pair():
    parameters = LinkParameters.fast()
    assert parameters.batch_ns == 9_845_000
    p = parameters.protocol.success_probability
    mean_ms = 5.5e-3 / p
    assert mean_ms == pytest.approx(30.4, abs=0.1)
    ends = Ends(parameters, seed=8)
    tick = last = 0
    waits_ms: list[float] = []
    while len(waits_ms) < 3_000:
        batch = ends.batch(tick)
        tick = batch.tick
        if batch.bell is not None:
            waits_ms.append((tick - last) / 100)
            last = tick
    # A failed batch ends on a tick; a herald is rounded up, by half a tick on average.
    assert_mean(waits_ms, mean_ms + 0.005, mean_ms)


def test_preparation_starts_again_after_a_herald_and_after_a_long_idle_time():
    parameters = LinkParameters(
        attempt_period_ns=10_000,
        attempts_per_batch=400,
        preparation_ms=10,
        idle_reset_ms=50,
        protocol=PerfectProtocol(success_probability=1),
    )
    ends = Ends(parameters)

    def outcomes(*ticks):
        return [(batch.tick, batch.bell is not None) for batch in map(ends.batch, ticks)]

    # Prepared 1000 ticks after the first batch; the third batch succeeds right after that.
    assert outcomes(0, 400, 800) == [(400, False), (800, False), (1001, True)]
    # Again after the herald, a skipped bin notwithstanding.
    assert outcomes(5000, 5400, 7400) == [(5400, False), (5800, False), (7401, True)]
    # A failed batch ends at 10_400: 50 ms later is still in time, one tick more is not.
    assert outcomes(10_000, 15_400) == [(10_400, False), (15_401, True)]
    assert outcomes(20_000, 25_401) == [(20_400, False), (25_801, False)]


def test_without_preparation_the_first_attempt_can_succeed():
    parameters = LinkParameters(protocol=PerfectProtocol(success_probability=1))
    assert Ends(parameters).batch(70).tick == 71


def test_both_psi_states_are_heralded_equally_often():
    ends = Ends(LinkParameters.perfect(success_probability=1), seed=9)
    bells = Counter(ends.batch(tick).bell for tick in range(4000))
    assert set(bells) == {BellState.PSI_PLUS, BellState.PSI_MINUS}
    assert_proportion(bells[BellState.PSI_PLUS], 4000, 0.5)


def test_all_four_bell_states_can_be_heralded():
    protocol = PerfectProtocol(success_probability=1, heralds=tuple(BellState))
    ends = Ends(LinkParameters(protocol=protocol), seed=10)
    bells = Counter(ends.batch(tick).bell for tick in range(4000))
    assert stats.chisquare([bells[bell] for bell in BellState]).pvalue > P_MIN


@pytest.mark.parametrize("first", [0, 1])
def test_the_two_ends_share_the_state_in_their_order(first):
    protocol = SinglePhotonProtocol(alpha_a=0.4, alpha_b=0.1)
    ends = Ends(LinkParameters(attempts_per_batch=10**6, protocol=protocol))
    bell, spins = ends.pair(0, first)
    assert spins[0].state is spins[1].state
    assert [spin.index for spin in spins] == [0, 1]
    np.testing.assert_array_equal(spins[0].state.tensor, protocol.state(bell).tensor)


def test_mocked_pairs_have_the_marginals_and_no_correlation():
    protocol = SinglePhotonProtocol(alpha_a=0.4, alpha_b=0.1)
    ends = Ends(LinkParameters(attempts_per_batch=10**6, protocol=protocol, mocked=True))
    bell, spins = ends.pair(0)
    assert spins[0].state is not spins[1].state
    pair = protocol.state(bell)
    for end, spin in enumerate(spins):
        np.testing.assert_allclose(spin.state.tensor, pair.reduced(end).tensor, atol=1e-15)


def test_perfect_pairs_are_the_state_announced():
    ends = Ends(LinkParameters.perfect(success_probability=1))
    for tick in range(20):
        bell, spins = ends.pair(tick)
        assert spins[0].state.fidelity(BELL_VECTORS[bell]) == pytest.approx(1)


def test_the_batch_starts_when_both_are_ready():
    ends = Ends(LinkParameters.perfect(success_probability=1))
    ends.ends[0].request(100, 130)
    assert ends.ask(1, 110).tick == 131


@pytest.mark.parametrize("first", [0, 1])
def test_requests_meet_within_the_window_and_only_there(first):
    ends = Ends(LinkParameters(sync_window_ticks=50)).ends
    assert ends[first].request(100, 100) == 151
    assert ends[1 - first].request(151, 151) == 202
    assert isinstance(ends[first].request(201, 201), Batch)


def test_a_request_is_used_once():
    ends = Ends(LinkParameters.fast())
    ends.batch(0)
    assert ends.ends[0].request(1, 1) == 52


def test_an_end_alone_waits_for_nobody():
    link = EntanglementLink(LinkParameters.fast(), random.Random(1))
    assert link.attach(lambda batch: None).request(7, 7) == 58


@given(
    requests=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=20),
    seed=st.integers(0, 100),
)
def test_which_end_asks_first_within_a_tick_makes_no_difference(requests, seed):
    """Each request pair comes some ticks after the last result; one end may lag."""

    def history(swapped: bool):
        ends = Ends(LinkParameters.perfect(success_probability=0.002), seed)
        tick, seen = 0, []
        for gap, lag in requests:
            start = tick + gap
            asked = [(start, 0), (start + lag, 1)]
            asked.sort(key=lambda ask: (ask[0], -ask[1] if swapped else ask[1]))
            (when, end), (later, other) = asked
            ends.ends[end].request(when, when)
            answer = ends.ask(other, later)
            seen.append(answer[:2])
            tick = answer.tick
        return seen

    assert history(False) == history(True)


def test_a_third_device_is_refused():
    ends = Ends(LinkParameters.fast())
    with pytest.raises(LimitError, match="two ends and both are attached"):
        ends.link.attach(lambda batch: None)


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts_per_batch": 0},
        {"attempt_period_ns": 0},
        {"sync_window_ticks": -1},
        {"preparation_ms": float("nan")},
        {"attempt_period_us": 5.5},
        {"protocol": {"kind": "magic"}},
    ],
)
def test_impossible_parameters_are_refused(fields):
    with pytest.raises(ValidationError):
        LinkParameters(**fields)


def test_parameters_survive_a_configuration_file():
    for parameters in (LinkParameters.paper(mocked=True), LinkParameters.perfect(0.5)):
        assert LinkParameters.model_validate_json(parameters.model_dump_json()) == parameters
