"""The external test cases of netqasm's own repository, against our simulated nodes.

netqasm tests its SDK with programs that run on a simulator behind it. These are the same
programs in other words, with the same claims, on noiseless nodes of both devices: ``generic``
(vanilla NetQASM, all qubits alike) and ``nv`` (an electron and four carbons, our compiler).

==========================================  ==================================================
netqasm, tests/test_external/...            here
==========================================  ==================================================
test_sdk/test_two_nodes.py                  test_nodes_work_side_by_side
test_sdk/test_measure.py                    test_a_superposition_is_measured_evenly
test_sdk/test_measure_basis.py              test_minus_is_1_in_the_x_basis
test_sdk/test_rotations.py                  test_quarter_turns_add_up
test_sdk/test_measure_if_conn.py            test_a_correction_depends_on_an_outcome[conn]
test_sdk/test_measure_if_future.py          test_a_correction_depends_on_an_outcome[future]
test_sdk/test_new_array.py                  test_an_array_says_which_qubits_are_flipped
test_sdk/test_measure_loop.py               test_a_loop_measures_into_an_array
test_sdk/test_measure_loop_context.py       test_a_loop_keeps_a_state_of_its_own
test_sdk/test_foreach.py                    test_going_through_an_array[foreach]
test_sdk/test_enumerate.py                  test_going_through_an_array[enumerate]
test_sdk/test_nested_loop.py                test_loops_in_loops
test_sdk/test_create_epr.py                 test_a_pair_is_phi_plus
test_sdk/test_create_epr_m.py               test_measured_pairs_agree
test_sdk/test_bell_corrections.py (4)       test_another_bell_state_is_corrected (4)
test_sdk/test_post_epr.py                   test_pairs_one_after_another_agree[routine]
test_sdk/test_post_epr_context.py           test_pairs_one_after_another_agree[context]
test_sdk/test_teleport.py                   test_teleportation
test_sdk/test_teleport_without_corr...py    test_teleportation_without_corrections
test_sdk/test_precompilation.py             test_an_angle_that_comes_after_compiling
test_toolbox.py, test (7)                   test_angles_as_sums_of_fractions (7)
test_toolbox.py, test_create_ghz (40)       test_ghz_states (8, five rounds each)
test_examples.py, test_blind_rotation       test_blind_rotation
test_examples.py, test_blind_grover         test_blind_grover
==========================================  ==================================================
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import netqasm
import numpy as np
import pytest
from netqasm.lang.instr import core
from netqasm.lang.operand import Immediate, Template
from netqasm.qlink_compat import BellState, EPRType
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.external import NetQASMConnection, Socket
from netqasm.sdk.qubit import QubitMeasureBasis
from netqasm.sdk.toolbox import create_ghz, get_angle_spec_from_float

from qnodeos.applications import Application, load_application, run_application
from tests.unit.spin_half import X, Z, rotation_matrix

APPS = Path(netqasm.__file__).parent / "examples" / "apps"
DEVICES = ("generic", "nv")
Z_LIMIT = 4.5
"""Standard deviations; by chance exceeded with a probability of 7e-6."""

PLUS = np.full((2, 2), 0.5)
MINUS = np.array([[0.5, -0.5], [-0.5, 0.5]])
PHI_PLUS = np.array([[0.5, 0, 0, 0.5], [0, 0, 0, 0], [0, 0, 0, 0], [0.5, 0, 0, 0.5]])
HADAMARD = (X + Z) / math.sqrt(2)


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return str(request.param)


def run(device: str, *, post_function: Any = None, **programs: Any) -> dict[str, Any]:
    """Run programs by the name of their node; what each returned, by the same name."""
    application = Application.from_functions(programs)
    [results] = run_application(
        application, device=device, seed="external", post_function=post_function
    )
    return {name: results[f"app_{name}"] for name in programs}


def alone(device: str, program: Any) -> Any:
    """The result of a program of one node, given its connection."""

    def main():
        with NetQASMConnection("alice") as alice:
            return program(alice)

    return run(device, alice=main)["alice"]


class States:
    """Looks at the states that are left when the programs have ended."""

    def __call__(self, backend: Any) -> None:
        self.states: dict[str, Any] = {
            name: qubit and qubit.qstate
            for name, node in backend.nodes.items()
            for qubit in node.qmemory._get_qubits(0)
        }

    def of_bob(self) -> Any:
        return self.states["bob"].qrepr.reduced_dm()

    def of_both(self) -> Any:
        assert self.states["alice"] is self.states["bob"]
        return self.of_bob()


# --- one node -------------------------------------------------------------------------


def test_nodes_work_side_by_side(device):
    def program(name):
        def main():
            with NetQASMConnection(name) as connection:
                first, second = Qubit(connection), Qubit(connection)
                first.H()
                second.X()
                first.X()
                second.H()
                assert connection.active_qubits == [first, second]
            return len(connection.active_qubits)

        return main

    assert run(device, alice=program("alice"), bob=program("bob")) == {"alice": 0, "bob": 0}


def test_a_superposition_is_measured_evenly(device):
    shots = 100

    def program(alice):
        count = 0
        for _ in range(shots):
            qubit = Qubit(alice)
            qubit.H()
            outcome = qubit.measure()
            alice.flush()
            count += outcome
        return count

    assert abs(alone(device, program) - shots / 2) < Z_LIMIT * math.sqrt(shots) / 2


def test_minus_is_1_in_the_x_basis(device):
    def program(alice):
        outcomes = []
        for _ in range(10):
            qubit = Qubit(alice)
            qubit.H()
            qubit.Z()
            outcomes.append(qubit.measure(basis=QubitMeasureBasis.X))
            alice.flush()
        return [int(outcome) for outcome in outcomes]

    assert alone(device, program) == [1] * 10


def test_quarter_turns_add_up(device):
    def program(alice):
        outcomes = []
        for _ in range(10):
            qubit = Qubit(alice)
            for rotate in (qubit.rot_X, qubit.rot_Y):
                rotate(n=1, d=1)
                rotate(n=2, d=2)
            outcomes.append(qubit.measure())
            alice.flush()
        return [int(outcome) for outcome in outcomes]

    assert alone(device, program) == [0] * 10


@pytest.mark.parametrize("style", ["conn", "future"])
def test_a_correction_depends_on_an_outcome(device, style):
    def program(alice):
        ends = []
        for _ in range(10):
            qubit = Qubit(alice)
            qubit.H()
            outcome = qubit.measure(inplace=True)
            if style == "conn":
                alice.if_eq(outcome, 1, lambda _, qubit=qubit: qubit.X())
            else:
                with outcome.if_eq(1):
                    qubit.X()
            end = qubit.measure()
            alice.flush()
            ends.append((int(outcome), int(end)))
        return ends

    ends = alone(device, program)
    assert {outcome for outcome, _ in ends} == {0, 1}
    assert {end for _, end in ends} == {0}


def test_an_array_says_which_qubits_are_flipped(device):
    def main():
        flips = [random.randint(0, 1) for _ in range(10)]
        with NetQASMConnection("alice") as alice:
            array = alice.new_array(init_values=flips)
            outcomes = alice.new_array(length=len(flips))

            def body(connection, _):
                qubit = Qubit(connection)
                with array.get_future_index("R0").if_eq(1):
                    qubit.X()
                qubit.measure(future=outcomes.get_future_index("R0"))

            alice.loop_body(body, stop=len(flips), loop_register="R0")
        return flips, list(outcomes)

    flips, outcomes = run(device, alice=main)["alice"]
    assert set(flips) == {0, 1}
    assert outcomes == flips


def test_a_loop_measures_into_an_array(device):
    shots = 100

    def program(alice):
        outcomes = alice.new_array(shots)

        def body(connection, _):
            qubit = Qubit(connection)
            qubit.H()
            qubit.measure(future=outcomes.get_future_index("R0"))

        alice.loop_body(body, stop=shots, loop_register="R0")
        alice.flush()
        assert len(outcomes) == shots
        return sum(outcomes)

    assert abs(alone(device, program) - shots / 2) < Z_LIMIT * math.sqrt(shots) / 2


def test_a_loop_keeps_a_state_of_its_own(device):
    def program(alice):
        outcomes = alice.new_array(10)
        parity = alice.new_array(init_values=[0]).get_future_index(0)
        with alice.loop(10) as index:
            qubit = Qubit(alice)
            with parity.if_eq(0):
                qubit.X()
            qubit.measure(outcomes.get_future_index(index))
            parity.add(1, mod=2)
        alice.flush()
        return list(outcomes)

    assert alone(device, program) == [1, 0] * 5


@pytest.mark.parametrize("style", ["foreach", "enumerate"])
def test_going_through_an_array(device, style):
    def program(alice):
        outcomes = alice.new_array(10)
        flips = alice.new_array(10, init_values=[random.randint(0, 1) for _ in range(10)])
        count = alice.new_array(1, init_values=[0]).get_future_index(0)

        def body(index, flip):
            qubit = Qubit(alice)
            with flip.if_eq(1):
                qubit.X()
            qubit.measure(future=outcomes.get_future_index(index))

        if style == "foreach":
            with flips.foreach() as flip:
                body(count, flip)
                count.add(1)
        else:
            with flips.enumerate() as (index, flip):
                body(index, flip)
        alice.flush()
        return list(flips), list(outcomes)

    flips, outcomes = alone(device, program)
    assert set(flips) == {0, 1}
    assert outcomes == flips


def test_loops_in_loops(device):
    def main():
        with NetQASMConnection("alice") as alice:
            counts = alice.new_array(2, init_values=[0, 0])
            outer, inner = counts.get_future_index(0), counts.get_future_index(1)

            def outer_body(connection, _):
                def inner_body(connection, _):
                    Qubit(connection).free()
                    inner.add(1)

                outer.add(1)
                connection.loop_body(inner_body, 10, loop_register="R0")

            alice.loop_body(outer_body, 8, loop_register="R1")
        return int(outer), int(inner)

    assert run(device, alice=main)["alice"] == (8, 80)


# --- pairs ----------------------------------------------------------------------------


def creator():
    """Makes a pair and leaves it."""
    socket = EPRSocket("bob")
    with NetQASMConnection("alice", epr_sockets=[socket]):
        socket.create()


def test_a_pair_is_phi_plus(device):
    def receiver():
        socket = EPRSocket("alice")
        with NetQASMConnection("bob", epr_sockets=[socket]):
            socket.recv()

    states = States()
    run(device, post_function=states, alice=creator, bob=receiver)
    assert np.allclose(states.of_both(), PHI_PLUS)


def test_measured_pairs_agree(device):
    def half(name, other):
        def main():
            socket = EPRSocket(other)
            with NetQASMConnection(name, epr_sockets=[socket]):
                request = socket.create if name == "alice" else socket.recv
                results = request(number=10, tp=EPRType.M)
            return [int(result.measurement_outcome) for result in results]

        return main

    outcomes = run(device, alice=half("alice", "bob"), bob=half("bob", "alice"))
    assert outcomes["alice"] == outcomes["bob"]
    assert set(outcomes["alice"]) == {0, 1}


BELL_CORRECTIONS = {
    # what undoes the correction that the subroutine makes
    BellState.PHI_PLUS: "",
    BellState.PHI_MINUS: "Z",
    BellState.PSI_PLUS: "X",
    BellState.PSI_MINUS: "ZX",
}


@pytest.mark.parametrize("bell_state", BELL_CORRECTIONS)
def test_another_bell_state_is_corrected(device, bell_state):
    """The receiver's subroutine corrects what its results name; here they are made to lie."""

    def receiver():
        socket = EPRSocket("alice")
        with NetQASMConnection("bob", epr_sockets=[socket]) as bob:
            [qubit] = socket.recv_keep()
            subroutine = bob.compile()
            loads = [
                place
                for place, instruction in enumerate(subroutine.instructions)
                if isinstance(instruction, core.LoadInstruction)
            ]
            # The first loads the qubit's address, the second the Bell state.
            register = subroutine.instructions[loads[1]].reg
            subroutine.instructions[loads[1]] = core.SetInstruction(
                reg=register, imm=Immediate(bell_state.value)
            )
            bob.commit_subroutine(subroutine)
            for gate in BELL_CORRECTIONS[bell_state]:
                getattr(qubit, gate)()

    states = States()
    run(device, post_function=states, alice=creator, bob=receiver)
    assert np.allclose(states.of_both(), PHI_PLUS)


@pytest.mark.parametrize("style", ["routine", "context"])
def test_pairs_one_after_another_agree(device, style):
    def half(name, other):
        def main():
            socket = EPRSocket(other)
            with NetQASMConnection(name, epr_sockets=[socket]) as connection:
                outcomes = connection.new_array(10)

                def measure(_, qubit, pair):
                    qubit.H()
                    qubit.measure(outcomes.get_future_index(pair))

                is_creator = name == "alice"
                if style == "routine":
                    request = socket.create if is_creator else socket.recv
                    request(number=10, post_routine=measure, sequential=True)
                else:
                    context = socket.create_context if is_creator else socket.recv_context
                    with context(number=10, sequential=True) as (qubit, pair):
                        measure(connection, qubit, pair)
            return list(outcomes)

        return main

    outcomes = run(device, alice=half("alice", "bob"), bob=half("bob", "alice"))
    assert outcomes["alice"] == outcomes["bob"]
    assert set(outcomes["alice"]) == {0, 1}


def sender(socket=None):
    """Teleports |+>; the two outcomes."""
    pairs = EPRSocket("bob")
    with NetQASMConnection("alice", epr_sockets=[pairs]) as alice:
        qubit = Qubit(alice)
        qubit.H()
        [half] = pairs.create()
        qubit.cnot(half)
        qubit.H()
        outcomes = qubit.measure(), half.measure()
    return tuple(int(outcome) for outcome in outcomes)


def test_teleportation_without_corrections(device):
    def receiver():
        pairs = EPRSocket("alice")
        with NetQASMConnection("bob", epr_sockets=[pairs]):
            pairs.recv()

    states = States()
    outcomes = run(device, post_function=states, alice=sender, bob=receiver)["alice"]
    # X does nothing to |+>, so only the first outcome shows.
    assert np.allclose(states.of_bob(), MINUS if outcomes[0] else PLUS)


def test_teleportation(device):
    def telling_sender():
        socket = Socket("alice", "bob")
        socket.send("{} {}".format(*sender()))

    def receiver():
        socket, pairs = Socket("bob", "alice"), EPRSocket("alice")
        with NetQASMConnection("bob", epr_sockets=[pairs]) as bob:
            [qubit] = pairs.recv()
            bob.flush()
            first, second = socket.recv().split()
            if second == "1":
                qubit.X()
            if first == "1":
                qubit.Z()

    states = States()
    run(device, post_function=states, alice=telling_sender, bob=receiver)
    assert np.allclose(states.of_bob(), PLUS)


def test_an_angle_that_comes_after_compiling(device):
    def client():
        socket = Socket("alice", "bob")
        with NetQASMConnection("alice") as alice:
            qubit = Qubit(alice)
            qubit.rot_X(n=Template("steps"), d=4)
            outcome = qubit.measure()
            subroutine = alice.compile()
            assert "{steps}" in str(subroutine)
            subroutine.instantiate(alice.app_id, arguments={"steps": int(socket.recv())})
            alice.commit_subroutine(subroutine)
            return int(outcome)

    def server():
        Socket("bob", "alice").send("16")

    assert run(device, alice=client, bob=server)["alice"] == 1


# --- the toolbox ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("halves", "terms"),
    [
        ([0], [(1, 0)]),
        ([1], [(1, 1)]),
        ([10], [(1, 10)]),
        ([0, 1, 2, 4], [(29, 4)]),
        ([0, 1, 2, 4, 10], [(29, 4), (1, 10)]),
        (1 / 3, None),
        (1.5 / math.pi, None),
    ],
)
def test_angles_as_sums_of_fractions(halves, terms):
    """No device: what the SDK makes of an angle if nobody tells it what a device can do."""
    fraction = halves if isinstance(halves, float) else sum(0.5**power for power in halves)
    found = get_angle_spec_from_float(angle=fraction * math.pi, tol=1e-6)
    assert terms in (None, found)
    assert abs(sum(n / 2**d for n, d in found) - fraction) * math.pi < 1e-6


def ghz_node(node, down, up, is_corrected):
    """Its own outcome, and the correction for those further up."""
    pairs = [EPRSocket(other) if other else None for other in (down, up)]
    sockets = [Socket(node, other) if other and is_corrected else None for other in (down, up)]
    with NetQASMConnection(node, epr_sockets=[socket for socket in pairs if socket]):
        qubit, correction = create_ghz(*pairs, *sockets, do_corrections=is_corrected)
        outcome = qubit.measure()
    return int(outcome), int(correction)


@pytest.mark.parametrize("is_corrected", [True, False])
@pytest.mark.parametrize("number", range(2, 6))
def test_ghz_states(device, number, is_corrected):
    names = [f"node{place}" for place in range(number)]
    neighbours = zip([None, *names], names, [*names[1:], None], strict=False)
    inputs = {
        node: {"node": node, "down": down, "up": up, "is_corrected": is_corrected}
        for down, node, up in neighbours
    }
    application = Application.from_functions(dict.fromkeys(names, ghz_node), inputs=inputs)
    seen = set()
    for results in run_application(application, device=device, seed="external", rounds=5):
        outcomes = [results[f"app_{name}"] for name in names]
        flips = np.cumsum([0, 0, *(correction for _, correction in outcomes[1:-1])])
        corrected = {int(own + flip) % 2 for (own, _), flip in zip(outcomes, flips, strict=False)}
        assert len(corrected) == 1
        seen |= corrected
    assert seen == {0, 1}


# --- the examples ---------------------------------------------------------------------


def test_blind_rotation(device):
    layers, rng = 4, np.random.default_rng(3)
    application = load_application(APPS / "blind_rotation")
    for _ in range(3):
        phi, theta = rng.uniform(0, 2 * math.pi, layers), rng.uniform(0, 2 * math.pi, layers + 1)
        client = {
            "num_iter": layers,
            "theta": theta.tolist(),
            "phi": phi.tolist(),
            "r": rng.integers(0, 2, layers).tolist(),
        }
        inputs = {"client": client, "server": {"num_iter": layers}}
        [results] = run_application(application, device=device, inputs=inputs)
        done = results["app_client"]
        flips = [s ^ r for s, r in zip(done["s"], done["r"], strict=False)]

        state = PLUS.astype(complex)
        for angle in phi:
            state = turned(HADAMARD @ rotation_matrix(angle, Z), state)
        for gate, is_needed in ((Z, (done["m"] + [0])[layers]), (X, flips[-1]), (Z, flips[-2])):
            if is_needed:
                state = turned(gate, state)
        state = turned(rotation_matrix(theta[-1], Z), state)
        fidelity = np.trace(state @ np.array(results["app_server"]["output_state"])).real
        assert fidelity > 0.999


def turned(unitary, state):
    return unitary @ state @ unitary.conj().T


def test_blind_grover(device):
    rng = np.random.default_rng(4)
    application = load_application(APPS / "blind_grover")
    for first, second in ((0, 0), (0, 1), (1, 0), (1, 1)):
        client = {
            "b0": first,
            "b1": second,
            "r1": int(rng.integers(2)),
            "r2": int(rng.integers(2)),
            "theta1": float(rng.uniform(0, 2 * math.pi)),
            "theta2": float(rng.uniform(0, 2 * math.pi)),
        }
        [results] = run_application(application, device=device, inputs={"client": client})
        done = results["app_client"]
        assert (done["result0"], done["result1"]) == (first, second)
