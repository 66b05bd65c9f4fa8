"""Criteria of applications that end with bits: they are related as the protocol promises."""

from __future__ import annotations

import ast
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from qnodeos.applications.conformance import ideal
from qnodeos.applications.conformance.observation import Observation, Verdict, all_hold
from qnodeos.applications.conformance.statistics import (
    SIGNIFICANCE,
    better_than,
    distribution,
    share,
)

CHSH_QUANTUM: Final = math.cos(math.pi / 8) ** 2
"""Probability to win with the application's angles on a perfect pair: 0.854."""
CHSH_CLASSICAL: Final = 0.75
"""The best without entanglement."""
MESSAGES: Final = ("hello from main()", "message from mod.myfunc()")
"""What `multiple_files` sends."""
PAIRS_PER_RUN: Final = 10
"""Pairs that the two link layer applications ask for."""
_LOGGED_BIT: Final = re.compile(r"(\w+): +m_(\w+): *([01])")
_PRINTED_BIT: Final = re.compile(r"(?:Client|Server): ([01])")


def always(holds: Sequence[bool], what: str) -> Verdict:
    """Whether something holds in every case, of which there is at least one."""
    return Verdict(bool(holds) and all(holds), f"{what} in {sum(holds)} of {len(holds)}")


def evenly(bits: Sequence[int], what: str) -> Verdict:
    """Whether bits are 0 and 1 equally often."""
    return share(sum(bits), len(bits), 0.5, what)


def chsh(runs: Sequence[Observation]) -> Verdict:
    """The game is won as often as quantum mechanics says, and more often than it can be without."""
    won = [
        run.results["alice"]["a"] ^ run.results["bob"]["b"]
        == run.inputs["alice"]["x"] & run.inputs["bob"]["y"]
        for run in runs
    ]
    return all_hold(
        [
            share(sum(won), len(won), CHSH_QUANTUM, "won", SIGNIFICANCE),
            better_than(sum(won), len(won), CHSH_CLASSICAL, "the classical bound"),
        ]
    )


def chsh_announced(runs: Sequence[Observation]) -> Verdict:
    """As `chsh`, and the result that Bob announces is that of the bits."""
    announced = []
    for run in runs:
        inputs = run.inputs["alice"]["x"] & run.inputs["bob"]["y"]
        won = run.results["alice"]["a"] ^ run.results["bob"]["b"] == inputs
        announced.append(("won" in run.results["bob"]["game_won"]) is won)
    return all_hold([chsh(runs), always(announced, "announced rightly")])


def magic_square(runs: Sequence[Observation]) -> Verdict:
    """Rows have even and columns odd parity, and the two agree in the cell they share."""
    won = []
    for run in runs:
        row, column = run.results["player1"]["row"], run.results["player2"]["col"]
        which_row, which_column = run.inputs["player1"]["row"], run.inputs["player2"]["col"]
        won.append(
            sum(row) % 2 == 0 and sum(column) % 2 == 1 and row[which_column] == column[which_row]
        )
    bits = [bit for run in runs for bit in run.results["player1"]["row"][:2]]
    return all_hold([always(won, "won"), evenly(bits, "ones in the row")])


def key_distribution(runs: Sequence[Observation]) -> Verdict:
    """Outcomes of equal bases are equal, of others independent; the error rate is 0."""
    equal: list[bool] = []
    unequal: list[bool] = []
    alike: list[bool] = []
    counts: list[bool] = []
    for run in runs:
        alice, bob = run.results["alice"], run.results["bob"]
        for mine, theirs in zip(alice["table"], bob["table"], strict=True):
            same_basis = mine[1] == theirs[1]
            alike.append(mine[2] is same_basis and theirs[2] is same_basis)
            (equal if same_basis else unequal).append(mine[3] == theirs[3])
        counts.append(
            all(
                one["qber"] == 0
                and one["diff_outcome_count"] == 0
                and one["outcome_comparison_count"] > 0
                and one["same_basis_count"] == sum(row[2] for row in one["table"])
                for one in (alice, bob)
            )
        )
    return all_hold(
        [
            always(equal, "same bit in the same basis"),
            evenly(unequal, "in other bases"),
            always(alike, "bases compared rightly"),
            always(counts, "error rate 0 at both ends"),
            share(len(equal), len(alike), 0.5, "same basis"),
        ]
    )


def bb84(runs: Sequence[Observation]) -> Verdict:
    """As `key_distribution`; the raw key has all bits that were not compared."""
    lengths = []
    for run in runs:
        for result in run.results.values():
            kept = [row[3] for row in result["table"] if row[4] == "-"]
            lengths.append(result["raw_key"] == kept)
    return all_hold([key_distribution(runs), always(lengths, "raw key right")])


def qkd(runs: Sequence[Observation]) -> Verdict:
    """As `key_distribution`; the raw keys are equal and have the sifted bits not compared."""
    keys = []
    for run in runs:
        alice, bob = run.results["alice"], run.results["bob"]
        length = alice["same_basis_count"] - alice["outcome_comparison_count"]
        keys.append(alice["raw_key"] == bob["raw_key"] and len(_key(alice["raw_key"])) == length)
    return all_hold([key_distribution(runs), always(keys, "equal keys")])


def _key(text: str) -> list[int]:
    """The bits of a key that an application returns as text."""
    if not text.startswith("["):
        return []
    bits: list[int] = ast.literal_eval(text)
    return bits


def blind_grover(runs: Sequence[Observation]) -> Verdict:
    """The search finds the entry that the client's oracle tags."""
    found = [
        (run.results["client"]["result0"], run.results["client"]["result1"])
        == (run.inputs["client"]["b0"], run.inputs["client"]["b1"])
        for run in runs
    ]
    outcomes = [run.results["client"]["s1"] for run in runs]
    return all_hold([always(found, "found"), evenly(outcomes, "ones seen by the server")])


def measured_directly(runs: Sequence[Observation]) -> Verdict:
    """Outcomes of both ends differ: Phi+ is anticorrelated in the Y basis."""
    return _printed(runs, lambda text: [int(bit) for bit in _PRINTED_BIT.findall(text)], 1)


def kept_and_measured(runs: Sequence[Observation]) -> Verdict:
    """Outcomes of both ends agree: Phi+ is correlated in the Z basis."""
    return _printed(runs, lambda text: [int(bit) for bit in text.strip()], 0)


def _printed(runs: Sequence[Observation], parse: Any, parity: int) -> Verdict:
    bits, related = [], []
    for run in runs:
        client, server = (parse(run.output.get(role, "")) for role in ("client", "server"))
        if not len(client) == len(server) == PAIRS_PER_RUN:
            return Verdict(
                False,
                f"{len(client)} and {len(server)} outcomes were printed, not {PAIRS_PER_RUN}",
            )
        bits += client
        related += [mine ^ theirs == parity for mine, theirs in zip(client, server, strict=True)]
    return all_hold([always(related, "equal" if parity == 0 else "unequal"), evenly(bits, "ones")])


def three_nodes(runs: Sequence[Observation]) -> Verdict:
    """The two outcomes of each of the three pairs agree."""
    agree, bits = [], []
    for run in runs:
        found = {
            (match[1], match[2]): int(match[3])
            for text in run.output.values()
            for match in _LOGGED_BIT.finditer(text)
        }
        for one, other in (("alice", "bob"), ("alice", "charlie"), ("bob", "charlie")):
            mine, theirs = found.get((one, other)), found.get((other, one))
            if mine is None or theirs is None:
                return Verdict(False, f"no outcome of {one} and {other} was logged")
            agree.append(mine == theirs)
            bits.append(mine)
    return all_hold([always(agree, "pairs agree"), evenly(bits, "ones")])


def single_node(runs: Sequence[Observation]) -> Verdict:
    """Outcomes of a Bell measurement are distributed as the prepared state says."""
    groups: dict[tuple[float, float], list[int]] = defaultdict(list)
    for run in runs:
        given, result = run.inputs["alice"], run.results["alice"]
        groups[given["phi"], given["theta"]].append(2 * result["m1"] + result["m2"])
    return distribution(
        [(outcomes, ideal.bell_measurement(*angles)) for angles, outcomes in groups.items()],
        f"{len(runs)} runs with {len(groups)} states",
    )


def multiple_files(runs: Sequence[Observation]) -> Verdict:
    """Both messages of Alice arrive at Bob, in order."""
    return always(
        [tuple(run.received.get("bob", ())) == MESSAGES for run in runs],
        "both messages, in order,",
    )


def remote_preparation(runs: Sequence[Observation]) -> Verdict:
    """The server finds what the prepared state turned by delta gives; both outcomes of the client.

    With alpha a multiple of pi the outcome is certain: r1, xor 1 if alpha is pi.
    """
    groups: dict[float, list[int]] = defaultdict(list)
    certain, clients = [], []
    for run in runs:
        given = run.inputs["client"]
        p1, m2 = run.results["client"]["p1"], run.results["server"]["m2"]
        clients.append(p1)
        probability = math.cos((given["alpha"] + given["r1"] * math.pi) / 2) ** 2
        if min(probability, 1 - probability) < 1e-9:
            certain.append(m2 == (probability < 0.5))
        else:
            groups[round(probability, 9)].append(m2)
    verdicts = [
        always(certain, "right where the outcome is certain"),
        evenly(clients, "ones at the client"),
    ]
    if groups:
        verdicts.append(
            distribution(
                [(bits, [zero, 1 - zero]) for zero, bits in groups.items()], "other angles"
            )
        )
    return all_hold(verdicts)


def own_assertion(runs: Sequence[Observation]) -> Verdict:
    """The script's own assertion on the state of both qubits holds, or it would have raised."""
    return always([True for _ in runs], "the script's assertion held")
