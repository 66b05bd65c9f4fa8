"""Delegated quantum computation end to end: identities, expected fidelity, reproducibility."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.readout import ReadoutFidelity
from drivers.nv import NVDriver
from qnodeos.assembly import NetworkConfig, NodeConfig, TwoNodeSystem, load_profile
from qnodeos.experiments.dqc import (
    SETS,
    Block,
    DqcSettings,
    blocks_of,
    merge,
    run_block,
)
from qnodeos.experiments.dqc_analysis import analyse_dqc
from qnodeos.experiments.programs import dqc_client, dqc_server
from qnodeos.qdevice.instructions import sqg
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState
from qnodeos.trace.events import Event
from sim.entangled_state import SinglePhotonProtocol
from sim.network import ProgramSpec
from sim.noise import NVNoise
from tests.system.bench import CERTAIN, Z_LIMIT, ZERO, assert_nothing_left, build, details, rotate

HERALDS = (BellState.PSI_PLUS, BellState.PSI_MINUS)


@dataclass(frozen=True)
class DqcRun:
    """Circuits of one pair of angles and what they gave; arrays of shape (circuits,)."""

    system: TwoNodeSystem
    client: np.ndarray
    server: np.ndarray

    @property
    def successes(self) -> np.ndarray:
        """Whether the server found the outcome of the ideal circuit."""
        found: np.ndarray = self.server == np.arange(self.server.size) % 2
        return found

    @property
    def heralds(self) -> np.ndarray:
        """The heralded states, in the order of the circuits."""
        codes = details(self.system.server.qnpu_trace, Event.PROCESSOR_CONSUME_OUTCOME)
        states = {int(OUTCOME_OF_HERALD[bell]): bell for bell in HERALDS}
        return np.array([states[code] for code in codes if code in states])


def run_dqc(
    config: NetworkConfig = CERTAIN,
    *,
    alpha: int,
    theta: int,
    circuits: int,
    profile=ZERO,
    seed: int | str = 1,
) -> DqcRun:
    """Run DQC circuits, the angles in units of pi/16."""
    system = build(config, profile, seed)
    outcomes = system.network.run(
        [
            ProgramSpec(
                "client",
                "client",
                dqc_client.main,
                {"alpha_steps": alpha, "theta_steps": theta, "circuits": circuits},
            ),
            ProgramSpec(
                "server", "server", dqc_server.main, {"alpha_steps": alpha, "circuits": circuits}
            ),
        ]
    )
    return DqcRun(system, *(np.array(each) for each in outcomes))


# --- a noiseless network --------------------------------------------------------------


@pytest.mark.parametrize("short_corrections", [False, True])
@pytest.mark.parametrize(("alpha", "theta"), SETS)
def test_noiseless_circuits_always_succeed(alpha, theta, short_corrections):
    node = CERTAIN.server.model_copy(update={"short_corrections": short_corrections})
    config = CERTAIN.model_copy(update={"server": node})
    run = run_dqc(config, alpha=alpha, theta=theta, circuits=24, seed=f"{alpha} {theta}")
    assert run.successes.all()
    # Everything that can make a difference has happened: both heralds with both outcomes
    # of the client, in both orientations.
    cases = set(zip(run.heralds, run.client, np.arange(24) % 2, strict=True))
    assert {herald for herald, _, _ in cases} == set(HERALDS)
    assert {bit for _, bit, _ in cases} == {0, 1}
    consumed = details(run.system.server.qnpu_trace, Event.PROCESSOR_CONSUME_OUTCOME)
    assert {10, 11} <= set(consumed)
    assert_nothing_left(run.system)


@given(
    alpha=st.integers(-32, 32),
    theta=st.integers(-32, 32),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40)
def test_the_identity_holds_for_all_angles(alpha, theta, seed):
    run = run_dqc(alpha=alpha, theta=theta, circuits=4, seed=seed)
    assert run.successes.all()


def corrections(x_on: frozenset[BellState], z_on: frozenset[BellState]):
    """A driver's `correct` with X after some heralds and Z after some."""

    def correct(self: NVDriver, state: BellState, qubit: int):
        pulses = [sqg(0, 16, qubit)] if state in x_on else []
        if state in z_on:
            pulses += [sqg(0, 16, qubit), sqg(1, 16, qubit)]
        return tuple(pulses)

    return correct


PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Z": np.diag([1, -1]),
    "Y": np.array([[0, -1j], [1j, 0]]),
}


def rotation(axis: str, steps: int) -> np.ndarray:
    angle = steps * math.pi / 16
    return math.cos(angle / 2) * PAULI["I"] - 1j * math.sin(angle / 2) * PAULI[axis]


def success_probability(alpha: int, theta: int, left_over: str) -> float:
    """Of the circuit when the pair is Phi+ with a Pauli operator left over at the server.

    Worked out with the textbook circuit (Rz, H), not with the pulses of the driver.
    """
    hadamard = (PAULI["X"] + PAULI["Z"]) / math.sqrt(2)
    pair = np.eye(2) / math.sqrt(2) @ PAULI[left_over].T  # amplitudes [client, server]
    client = hadamard @ rotation("Z", theta)
    total = 0.0
    for bit in (0, 1):
        server = (client @ pair)[bit]
        delta = alpha - theta + 16 * bit
        final = rotation("X", -alpha) @ hadamard @ rotation("Z", delta) @ server
        total += abs(final[0]) ** 2
    return total


@pytest.mark.parametrize("left_over", "IXYZ")
def test_the_textbook_circuit_is_right(left_over):
    # The oracle of the next test: without errors all circuits succeed, with a Z none.
    probabilities = [success_probability(a, t, left_over) for a, t in SETS]
    if left_over in "IZ":
        assert probabilities == pytest.approx([float(left_over == "I")] * len(SETS), abs=1e-12)
    else:
        assert min(probabilities) < 0.9


EVERY, NO = frozenset(HERALDS), frozenset[BellState]()
MISTAKES = {
    # what the driver applies after (Psi+, Psi-): X on, Z on; what is left over of the two
    "none": (NO, NO, ("X", "Y")),
    "swapped": (EVERY, frozenset({BellState.PSI_PLUS}), ("Z", "Z")),
    "sign ignored": (EVERY, NO, ("I", "Z")),
    "flip ignored": (NO, frozenset({BellState.PSI_MINUS}), ("X", "X")),
    "right": (EVERY, frozenset({BellState.PSI_MINUS}), ("I", "I")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_corrections_lower_the_fidelity_to_what_they_should(monkeypatch, mistake):
    x_on, z_on, left_over = MISTAKES[mistake]
    monkeypatch.setattr(NVDriver, "correct", corrections(x_on, z_on))
    circuits = 60
    for alpha, theta in ((0, 4), (5, -3)):
        run = run_dqc(alpha=alpha, theta=theta, circuits=circuits, seed=3)
        for herald, pauli in zip(HERALDS, left_over, strict=True):
            chosen = run.successes[run.heralds == herald]
            probability = success_probability(alpha, theta, pauli)
            assert chosen.size > circuits / 4
            if min(probability, 1 - probability) < 1e-9:
                assert chosen.mean() == round(probability)
            else:
                sigma = math.sqrt(probability * (1 - probability) / chosen.size)
                assert abs(chosen.mean() - probability) < Z_LIMIT * sigma
                assert chosen.mean() < 1


# --- the noise of the default configuration -------------------------------------------


def arms(columns: dict[str, np.ndarray], node: NodeConfig, circuits: int):
    """What every circuit does to the correlations, at one node.

    The correlation matrix T of a pair (T[i, j] = <sigma_i sigma_j>) meets, at each end, only
    rotations, depolarisation and dephasing; so the correlation of the two final Z
    measurements is c . T s, with c and s the vector Z taken backwards through what the
    client and the server did.

    Returns:
        The vectors, shape (circuits, 3).
    """
    timing, noise = node.timing, node.noise
    vectors = []
    herald_ns = 0
    pulses: list[tuple[int, int]] = []
    rows = zip(columns["time"], columns["event"], columns["detail"], strict=True)
    for tick, event, detail in rows:
        if event == Event.EGP_ENT_OK:
            herald_ns, pulses = int(tick) * timing.tick_ns, []
        elif event == Event.QDEVICE_PRODUCE_SQG_CMD:
            # The device gets it a tick later and starts it between two decoupling blocks.
            came_ns = (int(tick) + 1) * timing.tick_ns
            pulses.append((timing.start_ns(came_ns, herald_ns - timing.herald_lag_ns), detail))
        elif event == Event.QDEVICE_PRODUCE_MSR_CMD:
            vector = np.array([0.0, 0.0, 1.0])
            starts = [herald_ns, *(start for start, _ in pulses)]
            for index, (start, argument) in reversed(list(enumerate(pulses))):
                vector = rotate(vector, argument // 32, -(argument % 32))
                vector *= 1 - noise.gate_depolarising
                kept = math.exp(-(start - starts[index]) / 1e6 / noise.coherence_time_ms)
                vector *= (kept, kept, 1.0)
            vectors.append(vector)
    assert len(vectors) == circuits
    return np.array(vectors)


def expected_contrast(run: DqcRun, config: NetworkConfig) -> np.ndarray:
    """2 P(success) - 1 of every circuit with a perfect readout of the server, shape (n,).

    Closed form: (1 - 2 eps_c)(1 - p_ion) |c . T s|, with eps_c = ((1 - F0) + (1 - F1))/2 of
    the client, p_ion the probability that the client's readout ionises its centre, which
    then reads 1 whatever the qubit was, and T the correlations of the heralded state.
    """
    circuits = run.server.size
    client = arms(run.system.client.qnpu_trace.columns(), config.client, circuits)
    server = arms(run.system.server.qnpu_trace.columns(), config.server, circuits)
    protocol = config.link.protocol
    if isinstance(protocol, SinglePhotonProtocol):
        xx, yy, zz = protocol.correlators
    else:
        xx, yy, zz = 1.0, 1.0, -1.0
    signs = np.where(run.heralds == BellState.PSI_PLUS, 1.0, -1.0)
    correlations = np.stack([xx * signs, yy * signs, np.full(circuits, zz)], axis=1)
    correlation = (client * correlations * server).sum(axis=1)
    noise = config.client.noise
    errors = (1 - noise.readout_fidelity_0) + (1 - noise.readout_fidelity_1)
    # The server must find what the client reported; m_c = 1 turns the server by pi already.
    wanted = np.where(run.client == 0, 1.0, -1.0) * np.where(np.arange(circuits) % 2, -1.0, 1.0)
    contrast: np.ndarray = (1 - errors) * (1 - noise.ionisation_per_readout) * correlation * wanted
    return contrast


def raw_success(contrast: np.ndarray, node: NodeConfig) -> np.ndarray:
    """Probability of a success with the server's readout errors, shape (n,)."""
    noise = node.noise
    against = np.arange(contrast.size) % 2 == 1
    right = (1 + contrast) / 2
    correct = np.where(against, noise.readout_fidelity_1, noise.readout_fidelity_0)
    other = np.where(against, noise.readout_fidelity_0, noise.readout_fidelity_1)
    dark = np.where(against, noise.readout_fidelity_1, 1 - noise.readout_fidelity_1)
    intact = correct * right + (1 - other) * (1 - right)
    ionised = noise.ionisation_per_readout
    return (1 - ionised) * intact + ionised * dark


def assert_closed_form(runs: list[DqcRun], config: NetworkConfig) -> float:
    """Compare the successes with the closed form; returns the mean fidelity it gives."""
    contrast = np.concatenate([expected_contrast(run, config) for run in runs])
    successes = np.concatenate([run.successes for run in runs])
    probability = raw_success(contrast, config.server)
    deviation = float(successes.sum() - probability.sum())
    sigma = math.sqrt(float((probability * (1 - probability)).sum()))
    assert abs(deviation) < Z_LIMIT * sigma, f"{deviation / sigma:.1f} standard deviations"
    return float((1 + contrast.mean()) / 2)


def test_the_fidelity_is_that_of_the_closed_form():
    # 1,500 circuits give the success rate to 0.012 (one standard deviation).
    config = NetworkConfig.preset("fast")
    profile = load_profile("paper")
    runs = [
        run_dqc(
            config,
            alpha=alpha,
            theta=theta,
            circuits=250,
            profile=profile,
            seed=f"closed form {alpha} {block}",
        )
        for alpha, theta in ((5, 3), (-8, 8))
        for block in range(3)
    ]
    fidelity = assert_closed_form(runs, config)
    # The model is in the range of the experiment, not merely consistent with itself.
    assert 0.70 < fidelity < 0.73


AMPLIFIED = {
    "readout": {"readout_fidelity_0": 0.75, "readout_fidelity_1": 0.9},
    "ionisation": {"ionisation_per_readout": 0.3},
    "depolarisation": {"gate_depolarising": 0.06},
    "dephasing": {"coherence_time_ms": 4.0},
}


@pytest.mark.parametrize("kind", AMPLIFIED)
def test_every_kind_of_noise_alone_is_that_of_the_closed_form(kind):
    # Each alone and much of it: leaving it out would change the contrast by 0.3 at least,
    # and 300 circuits give the contrast to 0.06 (one standard deviation).
    node = NodeConfig(noise=NVNoise.noiseless().model_copy(update=AMPLIFIED[kind]))
    config = CERTAIN.model_copy(update={"client": node, "server": node})
    run = run_dqc(config, alpha=5, theta=3, circuits=300, profile=load_profile("paper"), seed=kind)
    assert assert_closed_form([run], config) < 0.9


# --- blocks and seeds -----------------------------------------------------------------


SETTINGS = DqcSettings(
    circuits_per_set=12,
    seed=5,
    profile="paper",
    network=NetworkConfig.preset("fast"),
    sets=SETS[:2],
)


def test_the_circuits_of_a_set_are_run_in_blocks():
    blocks = blocks_of(replace(SETTINGS, circuits_per_set=270))
    assert [(b.set_index, b.number, b.circuits) for b in blocks] == [
        (set_index, number, size)
        for number, size in enumerate((100, 100, 70))
        for set_index in (0, 1)
    ]
    assert [b.circuits for b in blocks_of(replace(SETTINGS, circuits_per_set=100))] == [100, 100]


def test_a_block_depends_on_its_seed_alone():
    seen: list[int] = []
    first, other = blocks_of(SETTINGS)
    once = run_block(SETTINGS, first, lambda: seen.append(1))
    run_block(SETTINGS, other)
    again = run_block(SETTINGS, first)
    assert len(seen) == 12
    for name in ("outcome", "client_outcome", "charge_ok", "orientation"):
        assert (getattr(once, name) == getattr(again, name)).all()
    for name, values in once.segments.items():
        assert (values == again.segments[name]).all()
    different = run_block(replace(SETTINGS, seed=6), first)
    assert (different.segments["live_time"] != once.segments["live_time"]).any()
    numbered = run_block(SETTINGS, Block(0, 1, 12))
    assert (numbered.segments["live_time"] != once.segments["live_time"]).any()


def test_blocks_merge_in_order_and_can_be_analysed():
    parts = [run_block(SETTINGS, Block(0, number, 12)) for number in range(2)]
    merged = merge(parts)
    assert merged.outcome.tolist() == [*parts[0].outcome, *parts[1].outcome]
    assert merged.segments["live_time"].size == 24
    result = analyse_dqc([merged], ReadoutFidelity(0.95, 0.995, 0, 0), seed=5)
    assert result["circuits"] == 24
    # The paper profile: measured live times of 4.8(6) ms, and stalls beyond.
    assert 3 < result["live_time_ms"]["p50"] < 7


def test_the_charge_checks_belong_to_their_circuits():
    # A centre that is ionised by every readout fails the check after every circuit.
    ionising = NetworkConfig.preset("fast").client
    ionising = ionising.model_copy(
        update={"noise": ionising.noise.model_copy(update={"ionisation_per_readout": 1.0})}
    )
    network = NetworkConfig.preset("fast").model_copy(update={"client": ionising})
    data = run_block(replace(SETTINGS, network=network), Block(0, 0, 6))
    assert not data.charge_ok.any()
    assert data.client_outcome.mean() > 0.5
