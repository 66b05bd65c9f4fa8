"""Local gate tomography on whole nodes: exact without noise, and as predicted with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import chi2

from calibration.readout import ReadoutFidelity
from qnodeos.assembly import NetworkConfig, NodeConfig, TwoNodeSystem, build_two_nodes, load_profile
from qnodeos.errors import ConfigurationError, IncompleteTraceError
from qnodeos.experiments.lgt import (
    LgtBlock,
    LgtSettings,
    blocks_of,
    lgt_process,
    merged,
    run_block,
    run_blocks,
)
from qnodeos.experiments.lgt_analysis import BASES, STATES, analyse_lgt, state_fidelity
from qnodeos.experiments.programs import dqc_client, dqc_server, lgt
from qnodeos.experiments.schedulers import SCHEDULERS
from qnodeos.trace.events import Event
from sim.network import ProgramSpec
from sim.noise import NVNoise
from tests.system.bench import CERTAIN, Z_LIMIT, assert_nothing_left, build, rotate

PERFECT = ReadoutFidelity(1, 1)
SETTINGS = LgtSettings(
    repetitions=4, seed=5, profile="paper", network=NetworkConfig.preset("prompt")
)
ALONG = [BASES.index(state) for state in STATES]
AGAINST = [index ^ 1 for index in ALONG]
ALONE, MULTITASKED = LgtBlock("alone", 0, 4), LgtBlock("multitasked", 0, 4)


# --- without noise ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["alone", "multitasked"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_without_noise_every_circuit_is_exact(mode, scheduler):
    settings = replace(SETTINGS, network=CERTAIN, scheduler=scheduler)
    data = run_block(settings, LgtBlock(mode, 0, 12))
    assert data.state.tolist() == 12 * list(range(6))
    assert data.charge_ok.all()
    assert (data.dqc_circuits > 0) == (mode == "multitasked")
    for state in STATES:
        zeros, shots = data.counts(state)
        assert set(shots.values()) == {12}
        assert state_fidelity(zeros, shots, state, PERFECT).value == 1
        # The other axes say nothing: that two of the four bases look certain is a matter of 1e-6.
        assert sum(0 < zeros[basis] < 12 for basis in BASES) >= 3


@pytest.mark.parametrize("queue_ahead", [0, 1, 7])
def test_queueing_ahead_changes_no_result_and_leaves_nothing(queue_ahead):
    results: list[int] = []

    def program() -> list[list[int]]:
        return lgt.main("client", 5, queue_ahead, lambda state, bits: results.append(state))

    system = build()
    (zeros,) = system.network.run([ProgramSpec("client", "lgt", program, {})])
    assert results == 5 * list(range(6))
    expected = np.array(zeros)
    system_again = build()
    (again,) = system_again.network.run(
        [ProgramSpec("client", "lgt", lgt.main, {"node": "client", "repetitions": 5})]
    )
    assert (expected == again).all()
    assert_nothing_left(system)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_subroutine_takes_the_published_time(scheduler):
    # About 2.4 ms: six times charge check, two gates between decoupling blocks, readout. That
    # it may have to let others run in between is not counted.
    settings = replace(SETTINGS, scheduler=scheduler)
    alone, beside = run_block(settings, ALONE), run_block(settings, MULTITASKED)
    assert 2.3 < np.median(alone.qnpu_ms) < 2.6
    assert np.median(beside.qnpu_ms) == pytest.approx(np.median(alone.qnpu_ms), rel=0.05)
    for data in (alone, beside):
        assert data.qnpu_ms.sum() < data.elapsed_ms


# --- with noise, as predicted -----------------------------------------------------------


@dataclass(frozen=True)
class LgtRun:
    """Results of LGT at the client: the outcomes, and P(report 0) worked out for each."""

    outcomes: np.ndarray
    predicted: np.ndarray

    def assert_predicted(self) -> None:
        """The zeros of the 36 circuits are as predicted: each, all, and what makes the fidelity."""
        shape = len(self.outcomes) // len(STATES), len(STATES), len(BASES)
        expected = self.predicted.reshape(shape)
        excess = ((self.outcomes == 0).reshape(shape) - expected).sum(axis=0)
        variance = (expected * (1 - expected)).sum(axis=0)
        z = excess / np.sqrt(variance)
        assert np.abs(z).max() < Z_LIMIT, z
        # A larger sum has a probability of 1e-5.
        assert (z**2).sum() < chi2.isf(1e-5, z.size)
        states = np.arange(len(STATES))
        total = (excess[states, ALONG] - excess[states, AGAINST]).sum()
        sigma = np.sqrt((variance[states, ALONG] + variance[states, AGAINST]).sum())
        assert abs(total) < Z_LIMIT * sigma, f"{total / sigma:.1f} standard deviations"

    @property
    def fidelities(self) -> np.ndarray:
        """Predicted, of every state, as the analysis defines it but with a perfect readout."""
        mean = self.predicted.reshape(-1, len(STATES), len(BASES)).mean(axis=0)
        states = np.arange(len(STATES))
        excess: np.ndarray = mean[states, ALONG] - mean[states, AGAINST]
        return 0.5 + excess / 2


def predicted_zeros(system: TwoNodeSystem, node: NodeConfig) -> np.ndarray:
    """P(report 0) of every readout of LGT, worked out from the times in the trace.

    Closed form: the Bloch vector starts as (0, 0, 1 - 2 e) with the initialisation error e;
    waiting multiplies x and y by exp(-t/T), a rotation everything by 1 - p. A readout that
    ionises the centre finds it dark; the others report 0 with F0 or 1 - F1.
    """
    timing, noise = node.timing, node.noise
    columns = system.client.qnpu_trace.columns()
    process = lgt_process(columns)
    ours = columns["process"] == process
    probabilities = []
    ready_ns = time_ns = decoupled_ns = 0
    vector = np.zeros(3)
    rows = zip(*(columns[name][ours] for name in ("time", "event", "detail")), strict=True)
    initialising = False
    for tick, event, detail in rows:
        came_ns = (int(tick) + 1) * timing.tick_ns  # the device gets it a tick later
        if event == Event.QDEVICE_PRODUCE_INI_CMD:
            vector = np.array([0.0, 0.0, 1 - 2 * noise.initialisation_error])
            initialising, decoupled_ns = True, 0
        elif event == Event.PROCESSOR_CONSUME_OUTCOME and initialising:
            # The outcome has come a tick after it was there.
            ready_ns = time_ns = (int(tick) - 1) * timing.tick_ns
            initialising = False
        elif event == Event.QDEVICE_PRODUCE_SQG_CMD:
            start_ns = timing.start_ns(came_ns, decoupled_ns or None)
            decoupled_ns = decoupled_ns or start_ns
            kept = np.exp(-(start_ns - time_ns) / 1e6 / noise.coherence_time_ms)
            vector = rotate(vector * (kept, kept, 1.0), detail // 32, detail % 32)
            vector = vector * (1 - noise.gate_depolarising)
            assert start_ns >= ready_ns
            time_ns = start_ns
        elif event == Event.QDEVICE_PRODUCE_MSR_CMD:
            dark = 1 - noise.readout_fidelity_1
            bright = (1 + vector[2]) / 2
            intact = noise.readout_fidelity_0 * bright + dark * (1 - bright)
            ionised = noise.ionisation_per_readout
            probabilities.append((1 - ionised) * intact + ionised * dark)
    return np.array(probabilities)


def run_lgt(config: NetworkConfig, repetitions: int, *, multitasked: bool, seed: str) -> LgtRun:
    outcomes: list[list[int]] = []
    inputs = {
        "node": "client",
        "repetitions": repetitions,
        "on_result": lambda state, bits: outcomes.append(bits),
    }
    dqc = {"alpha_steps": 0, "circuits": None}
    background = [
        ProgramSpec("client", "dqc", dqc_client.main, {**dqc, "theta_steps": 4}),
        ProgramSpec("server", "dqc", dqc_server.main, dqc),
    ]
    with build_two_nodes(config, load_profile("paper"), seed) as system:
        system.network.run(
            [ProgramSpec("client", "lgt", lgt.main, inputs)],
            background=background if multitasked else [],
        )
        predicted = predicted_zeros(system, config.client)
    return LgtRun(np.array(outcomes), predicted.reshape(-1, len(BASES)))


@pytest.mark.parametrize("multitasked", [False, True])
def test_the_counts_are_those_of_the_closed_form(multitasked):
    # 200 repetitions give the mean fidelity to 0.0045 (one standard deviation).
    config = NetworkConfig.preset("prompt")
    run = run_lgt(config, 200, multitasked=multitasked, seed=f"closed form {multitasked}")
    run.assert_predicted()
    # The model is in the range of the experiment, not merely consistent with itself.
    noise = config.client.noise
    contrast = noise.readout_fidelity_0 + noise.readout_fidelity_1 - 1
    fidelities = 0.5 + (run.fidelities - 0.5) / contrast
    assert 0.975 < fidelities.mean() < 0.985
    # By hand, where nothing decays: +Z has no gate along its axis and a flip against it.
    start = (1 - 2 * 0.01) * (1 - 0.015)
    assert fidelities[0] == pytest.approx(0.5 + start * (2 - 0.0028) / 4, abs=1e-12)


AMPLIFIED = {
    "readout": {"readout_fidelity_0": 0.75, "readout_fidelity_1": 0.9},
    "initialisation": {"initialisation_error": 0.15},
    "ionisation": {"ionisation_per_readout": 0.3},
    "depolarisation": {"gate_depolarising": 0.15},
    "dephasing": {"coherence_time_ms": 0.4},
}


@pytest.mark.parametrize("kind", AMPLIFIED)
def test_every_kind_of_noise_alone_is_that_of_the_closed_form(kind):
    # Each alone and so much that twice as much would lower the mean fidelity by 0.06 at least;
    # 60 repetitions give it to 0.012 at most (one standard deviation).
    node = NodeConfig(noise=NVNoise.noiseless().model_copy(update=AMPLIFIED[kind]))
    run = run_lgt(
        CERTAIN.model_copy(update={"client": node}), 60, multitasked=False, seed=f"much {kind}"
    )
    # Certain outcomes are certain: only the others have an error to compare with.
    certain = np.minimum(run.predicted, 1 - run.predicted) < 1e-9
    assert (run.outcomes[certain] == np.round(1 - run.predicted[certain])).all()
    replace(run, predicted=np.clip(run.predicted, 1e-9, 1 - 1e-9)).assert_predicted()
    assert run.fidelities.mean() < 0.95


def test_fidelities_alone_and_multitasked_agree():
    settings = replace(SETTINGS, repetitions=100)
    parts = {block: run_block(settings, block) for block in blocks_of(settings)}
    result = analyse_lgt(merged(parts, settings), ReadoutFidelity(0.95, 0.995), seed=5)
    assert result["comparison"]["p_value"] > 1e-4
    for estimate in result["mean_fidelity"].values():
        assert abs(estimate["value"] - 0.98) < Z_LIMIT * estimate["sigma"]
    # Charge checks take away the ionised readouts, which read dark in both orientations.
    checked = np.mean([e["charge_checked"]["value"] for e in result["alone"]])
    assert checked > result["mean_fidelity"]["alone"]["value"]


# --- blocks, seeds, charge --------------------------------------------------------------


def test_the_repetitions_are_run_in_blocks():
    blocks = blocks_of(replace(SETTINGS, repetitions=120))
    assert [(block.mode, block.number, block.repetitions) for block in blocks] == [
        (mode, number, size)
        for number, size in enumerate((50, 50, 20))
        for mode in ("alone", "multitasked")
    ]
    assert [b.repetitions for b in blocks_of(replace(SETTINGS, repetitions=50))] == [50, 50]


def test_a_block_depends_on_its_seed_alone():
    steps: list[int] = []
    once = run_block(SETTINGS, MULTITASKED, lambda: steps.append(1))
    run_block(SETTINGS, ALONE)
    again = run_block(SETTINGS, MULTITASKED)
    assert len(steps) == 24
    assert (once.outcome == again.outcome).all()
    assert (once.qnpu_ms == again.qnpu_ms).all()
    assert (once.elapsed_ms, once.dqc_circuits) == (again.elapsed_ms, again.dqc_circuits)
    for other in (
        run_block(replace(SETTINGS, seed=6), MULTITASKED),
        run_block(SETTINGS, replace(MULTITASKED, number=1)),
    ):
        assert (other.outcome != once.outcome).any()


def test_blocks_are_the_same_in_several_processes_and_in_any_order():
    settings = replace(SETTINGS, repetitions=2)
    here = dict(run_blocks(settings, 1, lambda _: None))
    shared = dict(run_blocks(settings, 2, lambda _: None))
    backwards = {block: shared[block] for block in reversed(blocks_of(settings))}
    for mode, data in merged(here, settings).items():
        other = merged(backwards, settings)[mode]
        assert (data.outcome == other.outcome).all()
        assert data.elapsed_ms == other.elapsed_ms


def test_the_charge_checks_belong_to_their_readouts():
    # Readouts of DQC lie between those of LGT, and an ionised centre reads dark.
    ionising = NVNoise.noiseless().model_copy(update={"ionisation_per_readout": 0.5})
    network = CERTAIN.model_copy(update={"client": NodeConfig(noise=ionising)})
    data = run_block(replace(SETTINGS, network=network), LgtBlock("multitasked", 0, 30))
    assert data.dqc_circuits > 0
    assert 0.4 < data.charge_ok.mean() < 0.6
    assert data.outcome[~data.charge_ok].all()
    for state in STATES:
        counts = data.counts(state, charge_checked=True)
        assert state_fidelity(*counts, state, PERFECT).value == 1


def test_a_trace_that_lost_events_is_refused(monkeypatch):
    monkeypatch.setattr("qnodeos.experiments.lgt._trace_capacity", lambda network, repetitions: 200)
    with pytest.raises(IncompleteTraceError, match="the trace of the client lost"):
        run_block(SETTINGS, ALONE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repetitions": 0}, "0 repetitions cannot be run: give 1 to 1,000,000"),
        ({"repetitions": 1_000_001}, "1000001 repetitions cannot be run"),
        ({"scheduler": "best"}, "there is no scheduler 'best'; choose one of: fcfs"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        replace(SETTINGS, **changes)


def test_other_profiles_run_too():
    assert run_block(replace(SETTINGS, profile="zero"), MULTITASKED).state.size == 24
