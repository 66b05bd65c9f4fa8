"""Applications on noisy nodes, and what density matrices predict of them.

``python -m tests.system.predictions [PROCESSES]`` prints a table of all of them.

Two kinds of prediction. *Closed*: a formula with the populations of the link's state, on nodes
that are perfect otherwise. *Replayed*: the physical instructions of each run, in the order in
which the drivers emitted them and with the times at which they were carried out, done again on
density matrices (`tests.system.density_replay`), for NV centres with realistic noise: errors of
initialisation, gates and readout, and decay with finite T1 and T2.

Frequencies are compared by their deviate: with p the probability predicted of each run, given
what was reported before, (sum of outcomes - sum of p) / sqrt(sum of p (1 - p)) is a standard
normal deviate. Of fidelities it is the mean difference over its standard error.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from netqasm.sdk import EPRSocket
from netqasm.sdk.qubit import QubitMeasureAxes
from netqasm.sdk.toolbox import create_ghz
from rich import box
from rich.console import Console
from rich.table import Table

from qnodeos.applications import Application
from qnodeos.applications.conformance import ideal
from qnodeos.applications.conformance.outcomes import CHSH_QUANTUM
from qnodeos.assembly import GenericDevice, NetworkDescription
from qnodeos.qdevice.outcomes import BellState, Outcome
from sim.link import LinkParameters
from tests.system.density_replay import joint_probabilities, pair_state
from tests.system.watched_runs import LINK, PERFECT, QUICK, Run, Watcher, example, network, nv

CHSH_INPUTS = list(itertools.product((0, 1), repeat=2))
PARTIES = ("alice", "bob", "charlie", "david")
STEP = math.pi / 16
EXACT = 1e-9
"""How far numbers may differ by rounding."""
Y = 1j * ideal.X @ ideal.Z


@dataclass(frozen=True)
class Prediction:
    """What was predicted of an application, and what it gave.

    Attributes:
        what: is compared.
        nodes: the devices and links.
        kind: closed or replayed.
        runs: how many values were compared.
        predicted: their mean, by density matrices.
        measured: their mean.
        deviate: of the two, in standard errors; 0 if they are the same but for rounding.
    """

    what: str
    nodes: str
    kind: str
    runs: int
    predicted: float
    measured: float
    deviate: float


def of_frequencies(
    what: str, nodes: str, kind: str, outcomes: Sequence[bool], predicted: Sequence[float]
) -> Prediction:
    """Compare events with the probability predicted of each."""
    seen, expected = np.array(outcomes, float), np.array(predicted)
    assert seen.size == expected.size > 0
    spread = math.sqrt((expected * (1 - expected)).sum())
    difference = float((seen - expected).sum())
    return Prediction(
        what,
        nodes,
        kind,
        seen.size,
        float(expected.mean()),
        float(seen.mean()),
        _deviate(difference, spread),
    )


def of_fidelities(
    what: str, nodes: str, kind: str, seen: Sequence[float], predicted: Sequence[float]
) -> Prediction:
    """Compare fidelities with those predicted."""
    measured, expected = np.array(seen), np.array(predicted)
    differences = measured - expected
    spread = float(np.std(differences)) / math.sqrt(differences.size)
    is_exact = np.abs(differences).max() < EXACT
    return Prediction(
        what,
        nodes,
        kind,
        differences.size,
        float(expected.mean()),
        float(measured.mean()),
        0.0 if is_exact else _deviate(float(differences.mean()), spread),
    )


def _deviate(difference: float, spread: float) -> float:
    """A difference in standard errors; of what is certain there is none, or it is infinite."""
    if spread:
        return difference / spread
    return 0.0 if abs(difference) < EXACT else math.inf


def phi_plus_correlators(protocol: Any) -> tuple[float, float, float]:
    """XX, YY and ZZ of a pair that was heralded and turned into Phi+."""
    flip = np.kron(np.eye(2), ideal.X)
    rho = flip @ pair_state(protocol, BellState.PSI_PLUS) @ flip
    xx, yy, zz = (float(np.trace(rho @ np.kron(s, s)).real) for s in (ideal.X, Y, ideal.Z))
    return xx, yy, zz


# --- CHSH -----------------------------------------------------------------------------

SWAPPED = "CHSH through the network layer's swap"
REPEATED = "CHSH through the application's repeater"


def chsh_after_swap(protocol: Any) -> float:
    """Probability to win on two pairs of a protocol that were swapped: correlators multiply."""
    xx, _, zz = phi_plus_correlators(protocol)
    return 0.5 + (xx**2 + zz**2) / (4 * math.sqrt(2))


def _measured_player(app_name: str, partner: str, rounds: int) -> dict[str, list[int]]:
    """Measured pairs for all four inputs; returns the outcomes by inputs."""
    from netqasm.sdk.external import NetQASMConnection

    socket = EPRSocket(partner)
    outcomes = {}
    with NetQASMConnection(app_name, epr_sockets=[socket]) as connection:
        for x, y in CHSH_INPUTS:
            if app_name == "alice":
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


AT_THE_ENDS = {"alice": "n0", "bob": "n2"}
"""Two players at the ends of a chain of three nodes, who know nothing of the one between."""


def _chsh_measured(watcher: Watcher, link: LinkParameters, rounds: int) -> list[bool]:
    players = Application.from_functions(
        {
            "alice": lambda: _measured_player("alice", "bob", rounds),
            "bob": lambda: _measured_player("bob", "alice", rounds),
        },
        allocation=AT_THE_ENDS,
    )
    description = NetworkDescription.chain(3, GenericDevice(), link)
    results = watcher.run(players, {}, network=description).results
    return [
        a ^ b == x & y
        for x, y in CHSH_INPUTS
        for a, b in zip(results["alice"][f"{x}{y}"], results["bob"][f"{x}{y}"], strict=True)
    ]


def chsh_swapped(watcher: Watcher, runs: int) -> Prediction:
    """Pairs swapped by the network layer, without noise."""
    won = _chsh_measured(watcher, PERFECT, runs // 4)
    return of_frequencies(SWAPPED, "noiseless", "closed", won, [CHSH_QUANTUM] * len(won))


def chsh_swapped_on_published_links(watcher: Watcher, runs: int) -> Prediction:
    """The same with the state of the published link."""
    won = _chsh_measured(watcher, LINK, runs // 4)
    predicted = [chsh_after_swap(QUICK)] * len(won)
    return of_frequencies(SWAPPED, "published link", "closed", won, predicted)


def _keeping_player(app_name: str, partner: str, which: int) -> int:
    """One pair that is kept, and then measured as the game has it."""
    from netqasm.sdk.external import NetQASMConnection

    socket = EPRSocket(partner)
    with NetQASMConnection(app_name, epr_sockets=[socket]) as connection:
        if app_name == "alice":
            (qubit,) = socket.create_keep()
            qubit.rot_Y(n=24 if which else 0, d=4)
        else:
            (qubit,) = socket.recv_keep()
            qubit.rot_Y(n=4 if which else 28, d=4)
        outcome = qubit.measure()
        connection.flush()
        return int(outcome)


def chsh_swapped_on_nv(watcher: Watcher, runs: int) -> Prediction:
    """Pairs swapped by the network layer of an NV centre between two others."""
    description = NetworkDescription.chain(3, nv(), LINK)
    players = Application.from_functions(
        {
            "alice": lambda x: _keeping_player("alice", "bob", x),
            "bob": lambda y: _keeping_player("bob", "alice", y),
        },
        allocation=AT_THE_ENDS,
    )
    won, predicted = [], []
    for number in range(runs):
        x, y = CHSH_INPUTS[number % 4]
        inputs = {"alice": {"x": x}, "bob": {"y": y}}
        run = watcher.run(players, inputs, network=description, seed=number)
        won.append(run.results["alice"] ^ run.results["bob"] == x & y)
        predicted.append(_chsh_probability(run, x, y, ("n0", "n2")))
    return of_frequencies(SWAPPED, "NV, published link", "replayed", won, predicted)


def _chsh_probability(run: Run, x: int, y: int, players: tuple[str, str]) -> float:
    """Of winning, given what was reported by anything but the players' last readouts."""
    last = [run.tape.readouts(player)[-1] for player in players]
    probabilities = joint_probabilities(run.tape, last)
    return sum(p for (a, b), p in probabilities.items() if a ^ b == x & y)


def _chsh_runs(watcher: Watcher, description: NetworkDescription, runs: int, seed: str):
    application = example("apps/chsh")
    for number in range(runs):
        x, y = CHSH_INPUTS[number % 4]
        inputs = {"alice": {"x": x}, "bob": {"y": y}}
        run = watcher.run(application, inputs, network=description, seed=f"{seed}/{number}")
        yield run, run.results["alice"]["a"] ^ run.results["bob"]["b"] == x & y, x, y


def _chsh_network(device: Any, link: LinkParameters) -> NetworkDescription:
    return network(["alice", "bob", "repeater"], device, link)


def chsh_repeated(watcher: Watcher, runs: int) -> Prediction:
    """The application's own repeater, without noise."""
    description = _chsh_network(GenericDevice(), PERFECT)
    won = [one for _, one, _, _ in _chsh_runs(watcher, description, runs, "noiseless")]
    return of_frequencies(REPEATED, "noiseless", "closed", won, [CHSH_QUANTUM] * runs)


def chsh_repeated_on_published_links(watcher: Watcher, runs: int) -> Prediction:
    """The same with the state of the published link."""
    description = _chsh_network(GenericDevice(), LINK)
    won = [one for _, one, _, _ in _chsh_runs(watcher, description, runs, "link")]
    return of_frequencies(
        REPEATED, "published link", "closed", won, [chsh_after_swap(QUICK)] * runs
    )


def chsh_repeated_on_nv(watcher: Watcher, runs: int) -> Prediction:
    """The same on NV centres."""
    won, predicted = [], []
    for run, one, x, y in _chsh_runs(watcher, _chsh_network(nv(), LINK), runs, "nv"):
        won.append(one)
        predicted.append(_chsh_probability(run, x, y, ("alice", "bob")))
    return of_frequencies(REPEATED, "NV, published link", "replayed", won, predicted)


# --- key distribution -----------------------------------------------------------------


def bb84(watcher: Watcher, bits: int, link: LinkParameters, device: Any, seed: int | str):
    """Whether the two ends differ, for every pair measured in the same basis, by basis."""
    run = watcher.run(
        example("apps/bb84"),
        {role: {"num_bits": bits} for role in ("alice", "bob")},
        network=network(["alice", "bob"], device, link),
        seed=seed,
    )
    errors: dict[str, list[bool]] = {"X": [], "Z": []}
    tables = (run.results[role]["table"] for role in ("alice", "bob"))
    for mine, theirs in zip(*tables, strict=True):
        if mine[1] == theirs[1]:
            errors[mine[1]].append(mine[3] != theirs[3])
    return errors, run


def error_probability(protocol: Any, basis: str, right: tuple[float, float]) -> float:
    """Probability that reported bits differ, of a pair turned into Phi+ at either end.

    Args:
        protocol: of the link.
        basis: X or Z.
        right: probabilities that 0 and 1 are reported rightly, at both ends.
    """
    turn = np.kron(ideal.H, ideal.H) if basis == "X" else np.eye(4)
    flip = np.kron(np.eye(2), ideal.X)
    rho = turn @ flip @ pair_state(protocol, BellState.PSI_PLUS) @ flip @ turn
    reported = np.array([[right[0], 1 - right[1]], [1 - right[0], right[1]]])
    probabilities = np.kron(reported, reported) @ np.diag(rho).real
    return float(probabilities[1] + probabilities[2])


def _bb84(
    watcher: Watcher,
    bits: int,
    basis: str,
    nodes: str,
    link: LinkParameters,
    right: tuple[float, float],
) -> Prediction:
    readout = {"readout_fidelity_0": right[0], "readout_fidelity_1": right[1]}
    device = GenericDevice(physics={"communication": readout})
    errors, _ = bb84(watcher, bits, link, device, seed=f"{nodes}/{basis}")
    seen = errors[basis]
    expected = 0.0 if link is PERFECT else error_probability(link.protocol, basis, right)
    return of_frequencies(f"BB84: errors in {basis}", nodes, "closed", seen, [expected] * len(seen))


def bb84_noiseless(watcher: Watcher, bits: int, basis: str) -> Prediction:
    """No errors without noise."""
    return _bb84(watcher, bits, basis, "noiseless", PERFECT, (1.0, 1.0))


def bb84_on_published_link(watcher: Watcher, bits: int, basis: str) -> Prediction:
    """(1 - correlator) / 2 of the pairs err; at the published rate, 2 % in 10 ms."""
    link = LinkParameters.paper()
    return _bb84(watcher, bits, basis, "published link and rate", link, (1.0, 1.0))


def bb84_with_readout_errors(watcher: Watcher, bits: int, basis: str) -> Prediction:
    """And more if readouts do."""
    return _bb84(watcher, bits, basis, "published link, readouts 0.95, 0.98", LINK, (0.95, 0.98))


def bb84_on_nv(watcher: Watcher, bits: int) -> Prediction:
    """Both bases, on NV centres; every pair is a tape of its own."""
    outcomes, predicted = [], []
    for number in range(bits):
        errors, run = bb84(watcher, 1, LINK, nv(0), seed=number)
        both = [run.tape.readouts(role)[-1] for role in ("alice", "bob")]
        if not (errors["X"] or errors["Z"]):
            continue
        outcomes += errors["X"] + errors["Z"]
        probabilities = joint_probabilities(run.tape, both)
        predicted.append(sum(p for (a, b), p in probabilities.items() if a != b))
    return of_frequencies(
        "BB84: errors in both", "NV, published link", "replayed", outcomes, predicted
    )


# --- teleportation --------------------------------------------------------------------


def teleported(watcher: Watcher, device: Any, link: LinkParameters, number: int):
    """One teleported state, another for every number."""
    phi, theta = 5 * number % 32 * STEP, (3 + 7 * number) % 17 * STEP
    run = watcher.run(
        example("apps/teleport"),
        {"sender": {"phi": phi, "theta": theta}},
        network=network(["sender", "receiver"], device, link),
        seed=number,
    )
    sent = ideal.prepared(phi, theta)
    return run, sent, ideal.fidelity(run.results["receiver"]["received_state"], sent)


def _teleport(watcher: Watcher, runs: int, nodes: str, link: LinkParameters) -> Prediction:
    """Averaged over outcomes, a teleported state keeps XX, -YY and ZZ along X, Y and Z."""
    xx, yy, zz = (1.0, -1.0, 1.0) if link is PERFECT else phi_plus_correlators(QUICK)
    seen, predicted = [], []
    for number in range(runs):
        _, sent, fidelity = teleported(watcher, GenericDevice(), link, number)
        x, y, z = ((sent.conj() @ pauli @ sent).real for pauli in (ideal.X, Y, ideal.Z))
        seen.append(fidelity)
        predicted.append((1 + xx * x**2 - yy * y**2 + zz * z**2) / 2)
    return of_fidelities("teleportation: fidelity", nodes, "closed", seen, predicted)


def teleport_noiseless(watcher: Watcher, runs: int) -> Prediction:
    """The state arrives."""
    return _teleport(watcher, runs, "noiseless", PERFECT)


def teleport_on_published_link(watcher: Watcher, runs: int) -> Prediction:
    """With the state of the published link."""
    return _teleport(watcher, runs, "published link", LINK)


def teleport_on_nv(watcher: Watcher, runs: int) -> Prediction:
    """On NV centres, with readout errors: what was reported may not be what happened."""
    seen, predicted = [], []
    for number in range(runs):
        run, sent, fidelity = teleported(watcher, nv(1), LINK, number)
        seen.append(fidelity)
        predicted.append(ideal.fidelity(run.expected_state(), sent))
    return of_fidelities(
        "teleportation: fidelity", "NV, published link", "replayed", seen, predicted
    )


# --- magic square ---------------------------------------------------------------------


def _square(watcher: Watcher, device: Any, link: LinkParameters, number: int):
    row, column = number % 3, number // 3 % 3
    run = watcher.run(
        example("apps/magic_square"),
        {"player1": {"row": row}, "player2": {"col": column}},
        network=network(["player1", "player2"], device, link),
        seed=number,
    )
    mine, theirs = run.results["player1"]["row"], run.results["player2"]["col"]
    return run, mine, theirs, row, column


def square_is_won(mine: list[int], theirs: list[int], row: int, column: int) -> bool:
    """Whether rows are even, columns odd, and both agree in the cell they share."""
    return bool(sum(mine) % 2 == 0 and sum(theirs) % 2 == 1 and mine[column] == theirs[row])


def square_noiseless(watcher: Watcher, runs: int) -> Prediction:
    """Always won."""
    won = [
        square_is_won(*_square(watcher, GenericDevice(), PERFECT, number)[1:])
        for number in range(runs)
    ]
    return of_frequencies("magic square: won", "noiseless", "closed", won, [1.0] * runs)


def square_on_nv(watcher: Watcher, runs: int) -> Prediction:
    """On NV centres, given what the first player found."""
    won, predicted = [], []
    for number in range(runs):
        run, mine, theirs, row, column = _square(watcher, nv(), LINK, number)
        readouts = run.tape.readouts("player2")
        assert len(readouts) == 3
        # Some outcomes are flipped by the player: those that differ from what was read out.
        flips = [
            bit ^ int(step.outcome is Outcome.SUCCESS_ONE)
            for bit, step in zip(theirs, readouts, strict=True)
        ]
        chance = 0.0
        for bits, probability in joint_probabilities(run.tape, readouts).items():
            told = [bit ^ flip for bit, flip in zip(bits, flips, strict=True)]
            chance += probability * square_is_won(mine, told, row, column)
        predicted.append(chance)
        won.append(square_is_won(mine, theirs, row, column))
    return of_frequencies("magic square: won", "NV, published link", "replayed", won, predicted)


# --- GHZ and anonymous transmission ---------------------------------------------------


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


def ghz(watcher: Watcher, device: Any, link: LinkParameters, seed: int):
    """A GHZ state of four nodes, shape (16, 16)."""
    parties = Application.from_functions(
        {name: lambda place=place: _ghz_party(place) for place, name in enumerate(PARTIES)}
    )
    run = watcher.run(parties, {}, network=network(list(PARTIES), device, link), seed=seed)
    return run, np.array(run.results["david"])


def ghz_fidelity(state: np.ndarray) -> float:
    """Overlap with (|0000> + |1111>)/sqrt 2."""
    assert state.shape == (16, 16)
    return float(state[np.ix_((0, 15), (0, 15))].real.sum()) / 2


def ghz_noiseless(watcher: Watcher, runs: int) -> Prediction:
    """A GHZ state."""
    seen = [ghz_fidelity(ghz(watcher, GenericDevice(), PERFECT, seed)[1]) for seed in range(runs)]
    return of_fidelities("GHZ of four nodes: fidelity", "noiseless", "closed", seen, [1.0] * runs)


def ghz_on_nv(watcher: Watcher, runs: int) -> Prediction:
    """On NV centres, with readout errors."""
    seen, predicted = [], []
    for seed in range(runs):
        run, state = ghz(watcher, nv(2), LINK, seed)
        seen.append(ghz_fidelity(state))
        predicted.append(ghz_fidelity(run.expected_state()))
    return of_fidelities(
        "GHZ of four nodes: fidelity", "NV, published link", "replayed", seen, predicted
    )


def anonymous(watcher: Watcher, device: Any, link: LinkParameters, number: int):
    """A state sent from one node to another among four, anonymously."""
    sender, receiver = list(itertools.permutations(PARTIES, 2))[number % 12]
    phi, theta = 5 * number % 32 * STEP, (3 + 7 * number) % 17 * STEP
    inputs = {
        sender: {"sender": True, "phi": phi, "theta": theta},
        receiver: {"receiver": True},
    }
    description = network(list(PARTIES), device, link)
    application = example("apps/anonymous_transmission")
    run = watcher.run(application, inputs, network=description, seed=number)
    return run, np.array(run.results[receiver]["qubit_state"]), ideal.prepared(phi, theta)


def anonymous_noiseless(watcher: Watcher, runs: int) -> Prediction:
    """The state arrives."""
    seen = []
    for number in range(runs):
        _, state, sent = anonymous(watcher, GenericDevice(), PERFECT, number)
        seen.append(ideal.fidelity(state, sent))
    return of_fidelities(
        "anonymous transmission: fidelity", "noiseless", "closed", seen, [1.0] * runs
    )


def anonymous_on_nv(watcher: Watcher, runs: int) -> Prediction:
    """On NV centres, with readout errors: little is left after three GHZ states."""
    seen, predicted = [], []
    for number in range(runs):
        run, state, sent = anonymous(watcher, nv(3), LINK, number)
        seen.append(ideal.fidelity(state, sent))
        predicted.append(ideal.fidelity(run.expected_state(), sent))
    return of_fidelities(
        "anonymous transmission: fidelity", "NV, published link", "replayed", seen, predicted
    )


# --- all of them ----------------------------------------------------------------------

ALL: list[tuple[Callable[..., Prediction], int, tuple[str, ...]]] = [
    (chsh_repeated, 3400, ()),
    (chsh_repeated_on_published_links, 400, ()),
    (chsh_repeated_on_nv, 400, ()),
    (chsh_swapped, 3400, ()),
    (chsh_swapped_on_published_links, 3400, ()),
    (chsh_swapped_on_nv, 400, ()),
    *((bb84_noiseless, 1000, (basis,)) for basis in "XZ"),
    *((bb84_on_published_link, 1000, (basis,)) for basis in "XZ"),
    *((bb84_with_readout_errors, 1000, (basis,)) for basis in "XZ"),
    (bb84_on_nv, 400, ()),
    (teleport_noiseless, 100, ()),
    (teleport_on_published_link, 400, ()),
    (teleport_on_nv, 400, ()),
    (square_noiseless, 180, ()),
    (square_on_nv, 180, ()),
    (ghz_noiseless, 20, ()),
    (ghz_on_nv, 200, ()),
    (anonymous_noiseless, 24, ()),
    (anonymous_on_nv, 48, ()),
]
"""What to compare, how often, and further arguments."""


def _compare(number: int) -> Prediction:
    compare, runs, arguments = ALL[number]
    with pytest.MonkeyPatch.context() as monkeypatch:
        return compare(Watcher(monkeypatch), runs, *arguments)


def main(workers: int) -> None:
    """Print all predictions beside what the applications gave.

    Args:
        workers: processes.
    """
    table = Table(title="Predicted and measured (simulated)", title_justify="left", box=box.SIMPLE)
    for name in ("what", "nodes", "prediction"):
        table.add_column(name)
    for name in ("runs", "predicted", "measured", "deviate"):
        table.add_column(name, justify="right")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for one in pool.map(_compare, range(len(ALL))):
            table.add_row(
                one.what,
                one.nodes,
                one.kind,
                str(one.runs),
                f"{one.predicted:.4f}",
                f"{one.measured:.4f}",
                f"{one.deviate:+.2f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1)
