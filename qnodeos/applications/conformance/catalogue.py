"""The applications that come with NetQASM, and what each has to show.

An entry is found by the place of its application in `netqasm.examples`. What an application
is given is drawn anew for every run; what it has to show is one of `states` and `outcomes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

from qnodeos.applications.conformance import outcomes, states
from qnodeos.applications.conformance.observation import Judge

Inputs: TypeAlias = dict[str, dict[str, Any]]
"""What every program is given, by role."""

FOLDERS: Final = ("apps", "qne_apps", "sdk_scripts")
"""Where the applications are in `netqasm.examples`; those of the last are single files."""
SCRIPTS: Final = "sdk_scripts"
STEP: Final = math.pi / 16
"""Angles of remote state preparation are multiples of this, in radians."""
_PARTIES: Final = ("alice", "bob", "charlie", "david")
_CHOICES: Final = tuple(permutations(_PARTIES, 2))
_SMALL_ANGLE: Final = 0.3
"""Of states whose outcomes are counted; keeps every outcome likely enough to be."""


@dataclass(frozen=True)
class Subject:
    """An application under test.

    Attributes:
        name: its place in `netqasm.examples`, as ``apps/teleport``.
        criterion: what has to hold, in a sentence.
        judge: sees whether it does.
        draw: inputs of a run, from a random stream and the number of the run.
        runs: how many runs the criterion needs.
        flaw: a bug of the application itself that the criterion has to get around; None if there
            is none.
    """

    name: str
    criterion: str
    judge: Judge
    draw: Callable[[Random, int], Inputs]
    runs: int
    flaw: str | None = None


def _angle(rng: Random) -> float:
    return rng.uniform(0, 2 * math.pi)


def _bit(rng: Random) -> int:
    return rng.randrange(2)


def _nothing(*roles: str) -> Callable[[Random, int], Inputs]:
    return lambda rng, number: {role: {} for role in roles}


def _state(unit: float, *roles: str) -> Callable[[Random, int], Inputs]:
    """A pure state, uniform on the Bloch sphere, for some programs; angles in the given unit."""

    def draw(rng: Random, number: int) -> Inputs:
        return {
            role: {"phi": _angle(rng) / unit, "theta": math.acos(rng.uniform(-1, 1)) / unit}
            for role in roles
        }

    return draw


def _teleport(unit: float) -> Callable[[Random, int], Inputs]:
    return lambda rng, number: {**_state(unit, "sender")(rng, number), "receiver": {}}


def _cnot(unit: float) -> Callable[[Random, int], Inputs]:
    """Every third control is |0> or |1>, which leaves nothing entangled."""

    def draw(rng: Random, number: int) -> Inputs:
        inputs = _state(unit, "controller", "target")(rng, number)
        if number % 3 == 0:
            inputs["controller"]["theta"] = _bit(rng) * math.pi / unit
        return inputs

    return draw


def _chsh(rng: Random, number: int) -> Inputs:
    return {"alice": {"x": number & 1}, "bob": {"y": number >> 1 & 1}, "repeater": {}}


def _magic_square(rng: Random, number: int) -> Inputs:
    return {"player1": {"row": number % 3}, "player2": {"col": number // 3 % 3}}


def _key(rng: Random, number: int) -> Inputs:
    bits = 24 + 8 * (number % 3)
    return {"alice": {"num_bits": bits}, "bob": {"num_bits": bits}}


def _blind_grover(rng: Random, number: int) -> Inputs:
    bits = {name: number >> place & 1 for place, name in enumerate(("b0", "b1", "r1", "r2"))}
    return {"client": {**bits, "theta1": _angle(rng), "theta2": _angle(rng)}, "server": {}}


def _blind_rotation(rng: Random, number: int) -> Inputs:
    steps = 1 + number % 3
    client = {
        "num_iter": steps,
        "phi": [_angle(rng) for _ in range(steps)],
        "theta": [_angle(rng) for _ in range(steps + 1)],
        "r": [_bit(rng) for _ in range(steps)],
    }
    return {"client": client, "server": {"num_iter": steps}}


def _blind_computation(rng: Random, number: int) -> Inputs:
    angles = {name: rng.uniform(0, 2) for name in ("alpha", "beta", "theta1", "theta2")}
    return {"client": {**angles, "r1": _bit(rng), "r2": _bit(rng)}, "server": {}}


def _anonymous(rng: Random, number: int) -> Inputs:
    sender, receiver = _CHOICES[number % len(_CHOICES)]
    inputs: Inputs = {role: {} for role in _PARTIES}
    inputs[sender] = {"sender": True, **_state(1.0, sender)(rng, number)[sender]}
    inputs[receiver] = {"receiver": True}
    return inputs


def _bell_measurement(rng: Random, number: int) -> Inputs:
    """One of three states, so that outcomes can be counted."""
    which = number % 3
    theta = _SMALL_ANGLE + which * (math.pi - 2 * _SMALL_ANGLE) / 2
    return {"alice": {"phi": 1.0 + which, "theta": theta}}


def _remote_preparation(rng: Random, number: int) -> Inputs:
    """Angles that the script's own arithmetic takes exactly; see `is_exact`."""
    alpha = number // 2 % 8 * math.pi / 4
    exact = [steps for steps in range(32) if is_exact(alpha, steps * STEP)]
    client = {"alpha": alpha, "theta1": rng.choice(exact) * STEP, "r1": _bit(rng)}
    use_rsp = bool(number % 2)
    return {"client": {**client, "use_rsp": use_rsp}, "server": {"use_rsp": use_rsp}}


def is_exact(alpha: float, theta1: float) -> bool:
    """Whether the angle that `rsp.py` sends to its server becomes the nearest number of steps.

    The script takes the integer part of the quotient, so that an angle of, say, 4.9999999 steps
    turns by 4. Angles in radians.
    """
    quotients = [(alpha - theta1 + bit * math.pi) / STEP for bit in range(3)]
    return all(int(quotient) == round(quotient) for quotient in quotients)


_TELEPORTED: Final = "the receiver holds the state the sender prepared; outcomes evenly distributed"
_CHSH: Final = (
    "won with probability cos^2(pi/8), which is not refuted at 99.9 %, while the classical 3/4 is"
)
_SQUARE: Final = "rows even, columns odd, equal in the shared cell, in all nine cells, always"

SUBJECTS: Final = (
    Subject(
        "apps/anonymous_transmission",
        "the receiver has the sender's state, for every choice of sender and receiver",
        states.anonymous_transmission,
        _anonymous,
        runs=24,
    ),
    Subject(
        "apps/bb84",
        "same bits in the same basis, error rate 0, raw key of all bits not compared",
        outcomes.bb84,
        _key,
        runs=12,
        flaw="own bug: raw keys not sifted",
    ),
    Subject(
        "apps/blind_grover",
        "the search finds the entry that the oracle tags, for all entries and secret bits",
        outcomes.blind_grover,
        _blind_grover,
        runs=64,
    ),
    Subject(
        "apps/blind_rotation",
        "the server's last qubit is H Rz(phi_n) ... H Rz(phi_1) |+>, up to the known Paulis",
        states.blind_rotation,
        _blind_rotation,
        runs=60,
    ),
    Subject("apps/chsh", _CHSH, outcomes.chsh, _chsh, runs=600),
    Subject(
        "apps/dist_cnot",
        "the state of both qubits is CNOT of the inputs",
        states.distributed_cnot,
        _cnot(1.0),
        runs=60,
    ),
    Subject(
        "apps/link_layer_ck",
        "outcomes of both ends are equal and evenly distributed",
        outcomes.kept_and_measured,
        _nothing("client", "server"),
        runs=30,
    ),
    Subject(
        "apps/link_layer_md",
        "outcomes in the Y basis are unequal, as of Phi+, and evenly distributed",
        outcomes.measured_directly,
        _nothing("client", "server"),
        runs=30,
    ),
    Subject("apps/magic_square", _SQUARE, outcomes.magic_square, _magic_square, runs=90),
    Subject(
        "apps/multiple_files",
        "both messages arrive in order, and both programs end",
        outcomes.multiple_files,
        _nothing("alice", "bob"),
        runs=5,
    ),
    Subject(
        "apps/single_node",
        "outcomes of a Bell measurement are distributed as the prepared state says",
        outcomes.single_node,
        _bell_measurement,
        runs=240,
    ),
    Subject("apps/teleport", _TELEPORTED, states.teleport(1.0), _teleport(1.0), runs=60),
    Subject(
        "apps/three_nodes",
        "outcomes of all three pairs agree, and are evenly distributed",
        outcomes.three_nodes,
        _nothing("alice", "bob", "charlie"),
        runs=60,
    ),
    Subject(
        "qne_apps/blind_computation",
        "the server's last qubit is H Rz(beta) H Rz(alpha) |+>, up to the known Paulis",
        states.blind_computation,
        _blind_computation,
        runs=60,
    ),
    Subject(
        "qne_apps/chsh",
        f"{_CHSH}; what Bob announces is so",
        outcomes.chsh_announced,
        _chsh,
        runs=600,
    ),
    Subject(
        "qne_apps/dist_cnot",
        "each of the two qubits is as CNOT of the inputs leaves it, and the text says "
        "whether they are entangled",
        states.distributed_cnot_apart,
        _cnot(math.pi),
        runs=60,
    ),
    Subject("qne_apps/magic_square", _SQUARE, outcomes.magic_square, _magic_square, runs=90),
    Subject(
        "qne_apps/qkd",
        "same bits in the same basis, error rate 0, equal keys of the sifted bits",
        outcomes.qkd,
        _key,
        runs=12,
    ),
    Subject(
        "qne_apps/teleport", _TELEPORTED, states.teleport(math.pi), _teleport(math.pi), runs=60
    ),
    Subject(
        "sdk_scripts/epr",
        "the script's own assertion holds: both qubits together are in Phi+",
        outcomes.own_assertion,
        _nothing("Alice", "Bob"),
        runs=20,
    ),
    Subject(
        "sdk_scripts/rsp",
        "the server finds r1 turned by alpha, with prepared and with measured pairs",
        outcomes.remote_preparation,
        _remote_preparation,
        runs=240,
        flaw="own bug: truncates angles",
    ),
)
"""All of them, by name."""


def examples() -> Path:
    """The folder of the applications that come with the installed NetQASM."""
    from netqasm import examples as package

    return Path(package.__path__[0])


def installed() -> Mapping[str, Path]:
    """The applications that come with the installed NetQASM, by name."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((examples() / folder).iterdir()):
            is_script = folder == SCRIPTS and path.suffix == ".py" and path.stem != "__init__"
            if is_script or (folder != SCRIPTS and any(path.glob("app_*.py"))):
                found[f"{folder}/{path.stem}"] = path
    return found
