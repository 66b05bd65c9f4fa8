"""What applications give on noisy nodes is what density matrices predict.

Two kinds of prediction. *Closed*: a formula with the populations of the link's state, on nodes
that are perfect otherwise. *From what was done*: the physical instructions of each run, in the
order in which the drivers emitted them and with the times at which they were carried out, done
again on density matrices (`tests.system.density_replay`), for NV centres with realistic noise:
errors of initialisation, gates and readout, and decay with finite T1 and T2.

Where readouts never err, what was reported is what happened, so the states themselves are
compared, run by run and to rounding. Otherwise frequencies are, at 99.9 % confidence: with p the
probability predicted for each run given what was reported before, (sum of outcomes - sum of p) /
sqrt(sum of p (1 - p)) is a standard normal deviate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from netqasm.sdk import EPRSocket
from netqasm.sdk.qubit import QubitMeasureAxes
from netqasm.sdk.toolbox import create_ghz

from qnodeos.applications import Application
from qnodeos.applications.conformance import ideal
from qnodeos.applications.conformance.outcomes import CHSH_QUANTUM
from qnodeos.assembly import GenericDevice, NetworkDescription
from qnodeos.qdevice.outcomes import BellState, Outcome
from sim.entangled_state import SinglePhotonProtocol
from sim.link import LinkParameters
from tests.system.density_replay import joint_probabilities, pair_state
from tests.system.watched_runs import LINK, QUICK, Run, Watcher, example, network, nv

Z_999 = 3.29
"""Two-sided 99.9 %."""
EXACT = 1e-9
CHSH_INPUTS = list(itertools.product((0, 1), repeat=2))
STEP = math.pi / 16


@pytest.fixture
def watcher(monkeypatch) -> Watcher:
    return Watcher(monkeypatch)


def deviate(outcomes: Iterable[int], probabilities: Iterable[float]) -> float:
    """How many standard deviations outcomes are from what was predicted for each."""
    seen, predicted = np.array(list(outcomes), float), np.array(list(probabilities))
    assert seen.size == predicted.size > 0
    return float((seen - predicted).sum() / math.sqrt((predicted * (1 - predicted)).sum()))


def phi_plus_correlators(protocol) -> tuple[float, float, float]:
    """XX, YY and ZZ of a pair that was heralded and turned into Phi+."""
    psi = pair_state(protocol, BellState.PSI_PLUS)
    flip = np.kron(np.eye(2), ideal.X)
    rho = flip @ psi @ flip
    y = 1j * ideal.X @ ideal.Z
    xx, yy, zz = (np.trace(rho @ np.kron(s, s)).real for s in (ideal.X, y, ideal.Z))
    return xx, yy, zz


# --- CHSH -----------------------------------------------------------------------------


def _chsh_player(app_name, partner, is_first, rounds):
    """Measured pairs for all four inputs; returns the outcomes by inputs."""
    from netqasm.sdk.external import NetQASMConnection

    socket = EPRSocket(partner)
    outcomes = {}
    with NetQASMConnection(app_name, epr_sockets=[socket]) as connection:
        for x, y in CHSH_INPUTS:
            if is_first:
                results = socket.create_measure(
                    number=rounds,
                    rotations_local=(24 if x else 0, 0, 0),
                    rotations_remote=(4 if y else 28, 0, 0),
                    rotation_axes_local=QubitMeasureAxes.YZY,
                    rotation_axes_remote=QubitMeasureAxes.YZY,
                )
            else:
                results = socket.recv_measure(number=rounds)
            connection.flush()
            outcomes[f"{x}{y}"] = [int(result.measurement_outcome) for result in results]
    return outcomes


def chsh_players(rounds: int) -> Application:
    """Two players at the ends of a chain of three nodes, who know nothing of the one between."""
    return Application.from_functions(
        {
            "alice": lambda: _chsh_player("alice", "bob", True, rounds),
            "bob": lambda: _chsh_player("bob", "alice", False, rounds),
        },
        allocation={"alice": "n0", "bob": "n2"},
    )


def chsh_wins(results) -> list[bool]:
    return [
        a ^ b == x & y
        for x, y in CHSH_INPUTS
        for a, b in zip(results["alice"][f"{x}{y}"], results["bob"][f"{x}{y}"], strict=True)
    ]


def test_chsh_through_swapping_is_won_as_often_as_on_one_pair(watcher):
    # 3,400 rounds: 99.9 % within 0.02.
    run = watcher.run(chsh_players(850), {}, network=NetworkDescription.chain(3, GenericDevice()))
    won = chsh_wins(run.results)
    assert len(won) == 3400
    assert np.mean(won) == pytest.approx(0.85, abs=0.02)
    assert abs(deviate(won, [CHSH_QUANTUM] * len(won))) < Z_999


def test_chsh_through_swapping_on_noisy_links_has_the_product_of_the_correlators(watcher):
    xx, _, zz = phi_plus_correlators(QUICK)
    predicted = 0.5 + (xx**2 + zz**2) / (4 * math.sqrt(2))
    assert 0.5 < predicted < 0.75
    description = NetworkDescription.chain(3, GenericDevice(), LINK)
    run = watcher.run(chsh_players(400), {}, network=description)
    won = chsh_wins(run.results)
    assert abs(deviate(won, [predicted] * len(won))) < Z_999


def _chsh_runs(watcher: Watcher, description, count: int) -> list[tuple[Run, int, int]]:
    application = example("apps/chsh")
    runs = []
    for number in range(count):
        x, y = CHSH_INPUTS[number % 4]
        inputs = {"alice": {"x": x}, "bob": {"y": y}}
        runs.append((watcher.run(application, inputs, network=description, seed=number), x, y))
    return runs


def _won(run: Run, x: int, y: int) -> bool:
    a, b = int(run.results["alice"]["a"]), int(run.results["bob"]["b"])
    return a ^ b == x & y


def test_the_repeater_of_the_application_on_noisy_links(watcher):
    xx, _, zz = phi_plus_correlators(QUICK)
    predicted = 0.5 + (xx**2 + zz**2) / (4 * math.sqrt(2))
    description = network(["alice", "bob", "repeater"], GenericDevice(), LINK)
    won = [_won(*one) for one in _chsh_runs(watcher, description, 160)]
    assert abs(deviate(won, [predicted] * len(won))) < Z_999


def test_the_repeater_of_the_application_on_noisy_nv_nodes(watcher):
    won, predicted = [], []
    for run, x, y in _chsh_runs(watcher, network(["alice", "bob", "repeater"], nv()), 120):
        (alice,), bob = run.tape.readouts("alice"), run.tape.readouts("bob")[-1]
        probabilities = joint_probabilities(run.tape, [alice, bob])
        assert sum(probabilities.values()) == pytest.approx(1)
        predicted.append(sum(p for (a, b), p in probabilities.items() if a ^ b == x & y))
        won.append(_won(run, x, y))
    assert 0.5 < np.mean(predicted) < 0.75
    assert abs(deviate(won, predicted)) < Z_999


# --- key distribution -----------------------------------------------------------------


def _bb84_errors(watcher: Watcher, description, bits: int, seed: int = 1) -> dict[str, list[bool]]:
    """Whether the two ends differ, for every pair measured in the same basis, by basis."""
    run = watcher.run(
        example("apps/bb84"),
        {role: {"num_bits": bits} for role in ("alice", "bob")},
        network=description,
        seed=seed,
    )
    errors: dict[str, list[bool]] = {"X": [], "Z": []}
    for mine, theirs in zip(
        run.results["alice"]["table"], run.results["bob"]["table"], strict=True
    ):
        if mine[1] == theirs[1]:
            errors[mine[1]].append(mine[3] != theirs[3])
    return errors


def _predicted_error(protocol, basis: str, right: Sequence[float]) -> float:
    """Probability that reported bits differ, of a pair turned into Phi+ at either end."""
    turn = np.kron(ideal.H, ideal.H) if basis == "X" else np.eye(4)
    flip = np.kron(np.eye(2), ideal.X)
    rho = turn @ flip @ pair_state(protocol, BellState.PSI_PLUS) @ flip @ turn
    reported = np.array([[right[0], 1 - right[1]], [1 - right[0], right[1]]])
    probabilities = np.kron(reported, reported) @ np.diag(rho).real
    return float(probabilities[1] + probabilities[2])


def test_bb84_without_noise_has_no_errors(watcher):
    description = NetworkDescription.fully_connected(["alice", "bob"], GenericDevice())
    errors = _bb84_errors(watcher, description, 200)
    assert len(errors["X"]) > 20 and len(errors["Z"]) > 20
    assert not any(errors["X"]) and not any(errors["Z"])


@pytest.mark.parametrize("right", [(1.0, 1.0), (0.95, 0.98)])
def test_bb84_on_the_published_link_errs_as_its_correlators_say(watcher, right):
    readout = {"readout_fidelity_0": right[0], "readout_fidelity_1": right[1]}
    device = GenericDevice(physics={"communication": readout})
    errors = _bb84_errors(watcher, network(["alice", "bob"], device, LINK), 500)
    predicted = {basis: _predicted_error(QUICK, basis, right) for basis in errors}
    if right == (1.0, 1.0):  # then it is (1 - correlator) / 2
        xx, _, zz = phi_plus_correlators(QUICK)
        assert predicted == pytest.approx({"X": (1 - xx) / 2, "Z": (1 - zz) / 2})
    for basis, seen in errors.items():
        assert len(seen) > 50
        assert abs(deviate(seen, [predicted[basis]] * len(seen))) < Z_999


def test_the_quick_link_has_the_state_of_the_published_one():
    quick, published = (
        pair_state(protocol, BellState.PSI_PLUS) for protocol in (QUICK, SinglePhotonProtocol())
    )
    assert np.abs(quick - published).max() < 0.03
    assert LinkParameters.paper().protocol == SinglePhotonProtocol()


# --- teleportation --------------------------------------------------------------------


def _teleported(watcher: Watcher, device, number: int, name: str = "apps/teleport"):
    phi, theta = 5 * number % 32 * STEP, (3 + 7 * number) % 17 * STEP
    return watcher.run(
        example(name),
        {"sender": {"phi": phi, "theta": theta}},
        network=network(["sender", "receiver"], device),
        seed=number,
    ), ideal.prepared(phi, theta)


def test_teleportation_on_the_published_link_has_the_average_fidelity_of_its_state(watcher):
    # Averaged over the outcomes a teleported state keeps XX, YY and ZZ along X, Y and Z.
    differences = []
    xx, yy, zz = phi_plus_correlators(QUICK)
    for number in range(100):
        run, sent = _teleported(watcher, GenericDevice(), number)
        x, y, z = (
            (sent.conj() @ pauli @ sent).real
            for pauli in (ideal.X, 1j * ideal.X @ ideal.Z, ideal.Z)
        )
        predicted = (1 + xx * x**2 - yy * y**2 + zz * z**2) / 2
        received = ideal.fidelity(run.results["receiver"]["received_state"], sent)
        differences.append(received - predicted)
    spread = np.std(differences) / math.sqrt(len(differences))
    assert abs(np.mean(differences)) < Z_999 * spread
    assert spread < 0.02


def test_teleportation_on_noisy_nv_nodes_gives_the_predicted_state(watcher):
    fidelities = []
    for number in range(16):
        run, sent = _teleported(watcher, nv(1, reads_perfectly=True), number)
        received = np.array(run.results["receiver"]["received_state"])
        assert np.abs(received - run.expected_state()).max() < EXACT
        fidelities.append(ideal.fidelity(received, sent))
    assert 0.5 < np.mean(fidelities) < 0.75


def test_teleportation_with_readout_errors_has_the_predicted_fidelity(watcher):
    differences = []
    for number in range(100):
        run, sent = _teleported(watcher, nv(1), number)
        received = ideal.fidelity(run.results["receiver"]["received_state"], sent)
        differences.append(received - ideal.fidelity(run.expected_state(), sent))
    spread = np.std(differences) / math.sqrt(len(differences))
    assert spread > 0  # what was reported is not always what happened
    assert abs(np.mean(differences)) < Z_999 * spread


# --- magic square ---------------------------------------------------------------------


def test_the_magic_square_on_noisy_nv_nodes_is_won_as_predicted(watcher):
    application = example("apps/magic_square")
    won, predicted = [], []
    for number in range(60):
        row, column = number % 3, number // 3 % 3
        run = watcher.run(
            application,
            {"player1": {"row": row}, "player2": {"col": column}},
            network=network(["player1", "player2"], nv()),
            seed=number,
        )
        mine, theirs = run.results["player1"]["row"], run.results["player2"]["col"]
        readouts = run.tape.readouts("player2")
        assert len(readouts) == 3
        # Some outcomes are flipped by the players: those that differ from what was read out.
        flips = [
            bit ^ int(step.outcome is Outcome.SUCCESS_ONE)
            for bit, step in zip(theirs, readouts, strict=True)
        ]
        wins = 0.0
        for bits, probability in joint_probabilities(run.tape, readouts).items():
            told = [bit ^ flip for bit, flip in zip(bits, flips, strict=True)]
            wins += probability * _square_is_won(mine, told, row, column)
        predicted.append(wins)
        won.append(_square_is_won(mine, theirs, row, column))
    assert 0.1 < np.mean(predicted) < 0.9
    assert abs(deviate(won, predicted)) < Z_999


def _square_is_won(mine, theirs, row, column) -> bool:
    return bool(sum(mine) % 2 == 0 and sum(theirs) % 2 == 1 and mine[column] == theirs[row])


# --- GHZ and anonymous transmission ---------------------------------------------------

PARTIES = ("alice", "bob", "charlie", "david")


def _ghz_party(place: int):
    """One of four nodes that make a GHZ state; the last one looks at all of it."""
    from netqasm.sdk.external import NetQASMConnection, Socket, get_qubit_state

    name = PARTIES[place]
    down = PARTIES[place - 1] if place else ""
    up = PARTIES[place + 1] if place + 1 < len(PARTIES) else ""
    pairs = {other: EPRSocket(other) for other in (down, up) if other}
    sockets = {other: Socket(name, other) for other in pairs}
    others = [Socket(name, other, socket_id=1) for other in PARTIES if other != name]
    with NetQASMConnection(name, epr_sockets=list(pairs.values())) as connection:
        qubit, _ = create_ghz(
            pairs.get(down), pairs.get(up), sockets.get(down), sockets.get(up), do_corrections=True
        )
        connection.flush()
        if up:
            others[-1].send("ready")
            others[-1].recv()
            return None
        for socket in others:
            socket.recv()
        state = get_qubit_state(qubit, reduced_dm=False).tolist()
        for socket in others:
            socket.send("seen")
        return state


def ghz() -> Application:
    return Application.from_functions(
        {name: lambda place=place: _ghz_party(place) for place, name in enumerate(PARTIES)}
    )


def ghz_fidelity(state) -> float:
    rho = np.array(state)
    assert rho.shape == (16, 16)
    return float((rho[0, 0] + rho[0, 15] + rho[15, 0] + rho[15, 15]).real) / 2


@pytest.mark.parametrize("device", [GenericDevice(), nv(2, reads_perfectly=True)])
def test_a_ghz_state_of_four_nodes_is_perfect_or_as_predicted(watcher, device):
    is_perfect = isinstance(device, GenericDevice)
    description = NetworkDescription.fully_connected(list(PARTIES), device)
    if not is_perfect:
        description = network(list(PARTIES), device)
    for seed in range(6):
        run = watcher.run(ghz(), {}, network=description, seed=seed)
        state = np.array(run.results["david"])
        if is_perfect:
            assert ghz_fidelity(state) == pytest.approx(1, abs=EXACT)
        else:
            assert np.abs(state - run.expected_state()).max() < EXACT
            assert 0.15 < ghz_fidelity(state) < 0.6


def test_anonymous_transmission_on_noisy_nv_nodes_gives_the_predicted_state(watcher):
    application = example("apps/anonymous_transmission")
    for seed, (sender, receiver) in enumerate([("alice", "david"), ("charlie", "bob")]):
        inputs = {
            sender: {"sender": True, "phi": 5 * STEP, "theta": 3 * STEP},
            receiver: {"receiver": True},
        }
        device = nv(3, reads_perfectly=True)
        run = watcher.run(application, inputs, network=network(list(PARTIES), device), seed=seed)
        received = np.array(run.results[receiver]["qubit_state"])
        assert np.abs(received - run.expected_state()).max() < EXACT
        assert np.trace(received).real == pytest.approx(1)
