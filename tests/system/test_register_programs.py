"""Programs with several qubits per node, on a generic device and on NV with memories.

What compiler, kernel, driver and device make of a program together is compared with its gates'
definitions: the state of every qubit, as the simulation tells it.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.external import NetQASMConnection, Socket, get_qubit_state
from netqasm.sdk.toolbox import parity_meas, set_qubit_state, toffoli_gate

from qnodeos.applications import Application, run_application
from qnodeos.assembly import NetworkDescription, NVDevice
from qnodeos.errors import ProgramError, SubroutineFailedError
from tests.unit.netqasm_machine import Machine
from tests.unit.spin_half import X, Z

QUBITS = 4
PHI_PLUS = np.array([[0.5, 0, 0, 0.5], [0, 0, 0, 0], [0, 0, 0, 0], [0.5, 0, 0, 0.5]])


@pytest.fixture(params=["generic", "nv"])
def device(request) -> str:
    return str(request.param)


def run(device: str, **programs: Any) -> dict[str, Any]:
    """Run programs by the name of their node; what each returned, by the same name."""
    [results] = run_application(
        Application.from_functions(programs), device=device, seed="registers"
    )
    return {name: results[f"app_{name}"] for name in programs}


def meet(name: str, other: str) -> None:
    """Wait for the other node: one end has a pair before the other has turned it into Phi+."""
    socket = Socket(name, other)
    socket.send("here")
    socket.recv()


def random_operations(rng: Random, number: int) -> list[tuple[Any, ...]]:
    """Gates, rotations, and blocks of them that run never, once or more often."""

    def gate() -> tuple[Any, ...]:
        first, second = rng.sample(range(QUBITS), 2)
        return rng.choice(
            [
                (rng.choice("XYZHKST"), first),
                (rng.choice(["cnot", "cphase", "swap"]), first, second),
                (rng.choice(["cnot", "cphase"]), first, second),
                ("turn", rng.choice("XYZ"), rng.randrange(256), rng.randrange(12), first),
                ("angle", rng.choice("XYZ"), rng.uniform(-7, 7), first),
            ]
        )

    return [
        ("repeat", rng.choice(["if", "loop"]), rng.randrange(3), gate())
        if rng.random() < 0.3
        else gate()
        for _ in range(number)
    ]


def on_machine(machine: Machine, operation: tuple[Any, ...]) -> None:
    match operation:
        case ("turn", axis, numerator, exponent, qubit):
            machine.rotate(axis.lower(), numerator * math.pi / 2**exponent, qubit)
        case ("angle", axis, angle, qubit):
            machine.rotate(axis.lower(), angle, qubit)
        case ("repeat", kind, times, inner):
            for _ in range(min(times, 1) if kind == "if" else times):
                on_machine(machine, inner)
        case (name, *qubits):
            machine.gate({"swap": "swp"}.get(name, name.lower()), *qubits)


def on_qubits(connection: Any, qubits: list[Qubit], operation: tuple[Any, ...]) -> None:
    match operation:
        case ("turn", axis, numerator, exponent, qubit):
            getattr(qubits[qubit], f"rot_{axis}")(n=numerator, d=exponent)
        case ("angle", axis, angle, qubit):
            getattr(qubits[qubit], f"rot_{axis}")(angle=angle)
        case ("repeat", "if", times, inner):
            with connection.new_array(1, init_values=[times]).get_future_index(0).if_nz():
                on_qubits(connection, qubits, inner)
        case ("repeat", _, times, inner):
            with connection.loop(times):
                on_qubits(connection, qubits, inner)
        case (name, first, *rest):
            getattr(qubits[first], name)(*(qubits[each] for each in rest))


@pytest.mark.parametrize("seed", range(12))
def test_any_program_leaves_the_state_that_its_gates_define(device, seed):
    operations = random_operations(Random(seed), 25)
    machine = Machine(QUBITS)
    for operation in operations:
        on_machine(machine, operation)

    def main():
        with NetQASMConnection("alice") as connection:
            qubits = [Qubit(connection) for _ in range(QUBITS)]
            for operation in operations:
                on_qubits(connection, qubits, operation)
            connection.flush()
            return [get_qubit_state(qubit) for qubit in qubits]

    states = run(device, alice=main)["alice"]
    # Angles in radians are right to the device's finest, 6 microradians, or half of it.
    for qubit, state in enumerate(states):
        assert np.allclose(state, machine.reduced_state(qubit), atol=1e-4)


def test_what_a_node_holds_survives_the_entanglement_it_makes_room_for(device):
    """On NV each pair is made on the electron, where the qubit before it has to leave."""
    angle = 1.0

    def half(name, other):
        def main():
            socket = EPRSocket(other)
            request = socket.create_keep if name == "alice" else socket.recv_keep
            with NetQASMConnection(name, epr_sockets=[socket]) as connection:
                own = Qubit(connection)
                own.rot_Y(angle=angle)
                pairs = [request()[0] for _ in range(3)]
                connection.flush()
                meet(name, other)
                alone = get_qubit_state(own)
                both = [get_qubit_state(qubit, reduced_dm=False) for qubit in pairs]
                meet(name, other)
                outcomes = [qubit.measure() for qubit in pairs[::-1]]
                own.rot_Y(angle=-angle)
                outcomes.append(own.measure())
            return alone, both, [int(outcome) for outcome in outcomes]

        return main

    results = run(device, alice=half("alice", "bob"), bob=half("bob", "alice"))
    cosine, sine = math.cos(angle / 2), math.sin(angle / 2)
    for alone, both, _ in results.values():
        expected = np.outer([cosine, sine], [cosine, sine])
        assert np.allclose(alone, expected, atol=1e-4)
        assert all(np.allclose(state, PHI_PLUS) for state in both)
    outcomes = results["alice"][2]
    assert outcomes == results["bob"][2]
    assert outcomes[-1] == 0


@pytest.mark.parametrize(("number", "max_qubits"), [(1, 1), (1, 2), (3, 5)])
def test_who_expects_psi_plus_has_it(device, number, max_qubits):
    def half(name, other):
        def main():
            socket = EPRSocket(other)
            with NetQASMConnection(name, epr_sockets=[socket], max_qubits=max_qubits) as connection:
                if name == "alice":
                    qubits = socket.create_keep(number=number)
                else:
                    qubits = socket.recv_keep(
                        number=number, expect_psi_plus=True, expect_phi_plus=False
                    )
                connection.flush()
                meet(name, other)
                states = [get_qubit_state(qubit, reduced_dm=False) for qubit in qubits]
                meet(name, other)
            return states

        return main

    flip = np.kron(np.eye(2), X)
    states = run(device, alice=half("alice", "bob"), bob=half("bob", "alice"))["bob"]
    assert len(states) == number
    for state in states:
        assert np.allclose(flip @ state @ flip, PHI_PLUS)


def test_memories_are_measured_in_any_order_and_keep_what_they_were(device):
    def main():
        with NetQASMConnection("alice") as connection:
            qubits = [Qubit(connection) for _ in range(QUBITS)]
            for qubit in qubits[::2]:
                qubit.X()
            first = [qubits[place].measure(inplace=True) for place in (3, 1, 2, 0)]
            for qubit in qubits:
                qubit.X()
            second = [qubits[place].measure() for place in (2, 0, 3, 1)]
        return [int(outcome) for outcome in first + second]

    assert run(device, alice=main)["alice"] == [0, 0, 1, 1, 0, 0, 1, 1]


def test_a_device_with_fewer_qubits_than_the_cap_is_no_problem_until_one_is_missing():
    network = NetworkDescription.fully_connected(
        ["alice", "bob"], NVDevice(memories=0, noiseless=True)
    )

    def simulate(number: int) -> Any:
        def main():
            with NetQASMConnection("alice", max_qubits=5) as connection:
                qubits = [Qubit(connection) for _ in range(number)]
                qubits[-1].X()
                outcome = qubits[-1].measure()
                connection.flush()
                return int(outcome)

        application = Application.from_functions({"alice": main})
        return run_application(application, network=network)[0]["app_alice"]

    assert simulate(1) == 1
    with pytest.raises(ProgramError, match="the device has 1 qubit, and this program") as caught:
        simulate(2)
    assert isinstance(caught.value.__cause__, SubroutineFailedError)


def test_s_is_no_s_dagger_on_any_qubit(device):
    """S turns |+> to +Y, S-dagger to -Y."""

    def main():
        with NetQASMConnection("alice") as connection:
            states = []
            for place in range(3):
                others = [Qubit(connection) for _ in range(place)]
                qubit = Qubit(connection)
                qubit.H()
                qubit.S()
                connection.flush()
                states.append(get_qubit_state(qubit))
                for each in (qubit, *others):
                    each.free()
        return states

    plus_i = (np.eye(2) + 1j * X @ Z) / 2  # Y = iXZ
    for state in run(device, alice=main)["alice"]:
        assert np.allclose(state, plus_i)


# --- what needs more than one qubit ---------------------------------------------------


@pytest.mark.parametrize("style", ["routine", "context"])
def test_every_pair_acts_on_a_qubit_that_stays(device, style):
    """The address of a pair's qubit is loaded; the SDK's NV compiler does not see such values."""
    number = 6

    def half(name, other):
        def main():
            socket = EPRSocket(other)
            with NetQASMConnection(name, epr_sockets=[socket]) as connection:
                outcomes, parity = connection.new_array(number), Qubit(connection)

                def add(_, qubit, pair):
                    qubit.cnot(parity)
                    qubit.measure(outcomes.get_future_index(pair))

                is_creator = name == "alice"
                if style == "routine":
                    request = socket.create_keep if is_creator else socket.recv_keep
                    request(number=number, sequential=True, post_routine=add)
                else:
                    context = socket.create_context if is_creator else socket.recv_context
                    with context(number=number, sequential=True) as (qubit, pair):
                        add(connection, qubit, pair)
                total = parity.measure()
            return [int(outcome) for outcome in outcomes], int(total)

        return main

    results = run(device, alice=half("alice", "bob"), bob=half("bob", "alice"))
    outcomes, total = results["alice"]
    assert results["bob"] == (outcomes, total)
    assert set(outcomes) == {0, 1}
    assert total == sum(outcomes) % 2


def test_pairs_kept_together_in_a_context(device):
    def half(name, other):
        def main():
            socket = EPRSocket(other)
            with NetQASMConnection(name, epr_sockets=[socket]) as connection:
                outcomes = connection.new_array(3)
                context = socket.create_context if name == "alice" else socket.recv_context
                with context(number=3) as (qubit, pair):
                    qubit.H()
                    qubit.measure(outcomes.get_future_index(pair))
            return [int(outcome) for outcome in outcomes]

        return main

    results = run(device, alice=half("alice", "bob"), bob=half("bob", "alice"))
    assert results["alice"] == results["bob"]


def test_the_toffoli_gate_of_the_toolbox(device):
    def main():
        table = {}
        with NetQASMConnection("alice") as connection:
            for bits in np.ndindex(2, 2, 2):
                qubits = [Qubit(connection) for _ in bits]
                for qubit, bit in zip(qubits, bits, strict=True):
                    if bit:
                        qubit.X()
                toffoli_gate(*qubits)
                outcomes = [qubit.measure() for qubit in qubits]
                connection.flush()
                table[bits] = tuple(int(outcome) for outcome in outcomes)
        return table

    table = run(device, alice=main)["alice"]
    assert table == {(a, b, c): (a, b, c ^ (a & b)) for a, b, c in table}


@pytest.mark.parametrize(
    ("bases", "outcome"), [("XX", 0), ("ZZ", 0), ("YY", 1), ("-XX", 1), ("-YY", 0), ("II", 0)]
)
def test_the_parity_measurements_of_the_toolbox(device, bases, outcome):
    def main():
        with NetQASMConnection("alice") as connection:
            first, second = Qubit(connection), Qubit(connection)
            first.H()
            first.cnot(second)
            found = parity_meas([first, second], bases)
            connection.flush()
            return int(found), get_qubit_state(first, reduced_dm=False)

    found, state = run(device, alice=main)["alice"]
    assert found == outcome
    assert np.allclose(state, PHI_PLUS)


def test_a_state_by_its_angles(device):
    phi, theta = 2.0, 0.7

    def main():
        with NetQASMConnection("alice") as connection:
            qubit = Qubit(connection)
            set_qubit_state(qubit, phi, theta)
            connection.flush()
            return get_qubit_state(qubit)

    state = np.array([math.cos(theta / 2), np.exp(1j * phi) * math.sin(theta / 2)])
    found = run(device, alice=main)["alice"]
    assert np.allclose(found, np.outer(state, state.conj()), atol=1e-4)
