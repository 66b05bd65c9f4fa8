"""Programs of all kinds, written with the NetQASM SDK, on noiseless nodes in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from importlib import import_module

import pytest
from netqasm.qlink_compat import RandomBasis
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.build_epr import EprMeasBasis
from netqasm.sdk.classical_communication.message import StructuredMessage
from netqasm.sdk.external import NetQASMConnection, Socket

from qnodeos.assembly import NetworkConfig
from qnodeos.cnpu.external import install
from qnodeos.errors import ProgramError
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.requests import BASIS_X, BASIS_Y, BASIS_Z
from sim.entangled_state import PerfectProtocol
from tests.system.bench import CERTAIN, Z_LIMIT, assert_nothing_left, build, run


def run_clean(seed: int | str = 1, config: NetworkConfig = CERTAIN, **programs):
    """Run programs on fresh nodes; nothing may be left behind."""
    system = build(config, seed=seed)
    results = run(system, **programs)
    assert_nothing_left(system)
    return results


def on_client(program, **options):
    """The result of a program that has the client's QNPU for itself."""

    def main():
        with NetQASMConnection("client", **options) as connection:
            return program(connection)

    return run_clean(client=main)["client"]


# --- local programs -------------------------------------------------------------------

PREPARATIONS = {
    "nothing": (lambda q: None, 0),
    "X": (lambda q: q.X(), 1),
    "Y": (lambda q: q.Y(), 1),
    "Z": (lambda q: q.Z(), 0),
    "HZH": (lambda q: (q.H(), q.Z(), q.H()), 1),
    "HTTTTH": (lambda q: (q.H(), q.T(), q.T(), q.T(), q.T(), q.H()), 1),
    "HSSH": (lambda q: (q.H(), q.S(), q.S(), q.H()), 1),
    "KK": (lambda q: (q.K(), q.K()), 0),
    "Rz in a Ramsey sequence": (lambda q: (q.H(), q.rot_Z(n=16, d=4), q.H()), 1),
    "angles": (lambda q: (q.rot_X(angle=math.pi / 2), q.rot_X(angle=math.pi / 2)), 1),
    "angles below zero": (lambda q: (q.rot_Y(angle=math.pi / 4), q.rot_Y(angle=-math.pi / 4)), 0),
    "three axes": (lambda q: (q.rot_X(n=8, d=4), q.rot_Z(n=8, d=4), q.rot_Y(n=24, d=4)), 0),
}


@pytest.mark.parametrize("max_qubits", [1, 2])
def test_vanilla_gates_do_what_they_say(max_qubits):
    def program(connection):
        outcomes = {}
        for name, (prepare, _) in PREPARATIONS.items():
            qubit = Qubit(connection)
            prepare(qubit)
            outcome = qubit.measure(store_array=len(name) % 2 == 0)
            connection.flush()
            outcomes[name] = int(outcome)
        return outcomes

    expected = {name: bit for name, (_, bit) in PREPARATIONS.items()}
    assert on_client(program, max_qubits=max_qubits) == expected


def test_every_multiple_of_pi_over_16_can_be_given_in_radians():
    # The SDK alone writes 23 of these 96 as sums of finer fractions.
    def program(connection):
        outcomes = []
        for steps in range(-32, 64):
            qubit = Qubit(connection)
            qubit.rot_X(angle=steps * math.pi / 16)
            qubit.rot_X(n=(16 - steps) % 32, d=4)
            outcome = qubit.measure()
            connection.flush()
            outcomes.append(int(outcome))
        return outcomes

    assert on_client(program, max_qubits=1) == [1] * 96


def test_a_rotation_has_the_right_probability():
    shots, angle = 400, 11 * math.pi / 16

    def program(connection):
        outcomes = connection.new_array(shots)
        with connection.loop(shots) as index:
            qubit = Qubit(connection)
            qubit.rot_X(angle=angle)
            qubit.measure(future=outcomes.get_future_index(index))
        connection.flush()
        return sum(int(outcome) for outcome in outcomes)

    probability = math.sin(angle / 2) ** 2
    ones = on_client(program, max_qubits=1)
    assert abs(ones - shots * probability) < Z_LIMIT * math.sqrt(
        shots * probability * (1 - probability)
    )


# --- classical parts of a subroutine --------------------------------------------------


def test_arrays_keep_their_values_and_their_holes():
    def program(connection):
        array = connection.new_array(3, init_values=[5, -6, None])
        connection.flush()
        return [array.get_future_index(i).value for i in range(3)]

    assert on_client(program) == [5, -6, None]


def test_futures_compute():
    def program(connection):
        values = connection.new_array(2, init_values=[5, 30])
        values.get_future_index(0).add(3)
        values.get_future_index(1).add(3, mod=32)
        values.get_future_index(1).add(values.get_future_index(0))
        connection.flush()
        return [int(value) for value in values]

    # The second sum is 33 mod 32 = 1, and 1 + 8.
    assert on_client(program) == [8, 9]


@pytest.mark.parametrize("style", ["context", "body"])
def test_loops_run_as_often_as_they_say(style):
    def program(connection):
        outcomes = connection.new_array(6)

        def body(connection, index):
            qubit = Qubit(connection)
            qubit.X()
            qubit.measure(future=outcomes.get_future_index(index))

        if style == "context":
            with connection.loop(4, start=1) as index:
                body(connection, index)
        else:
            connection.loop_body(body, 4, start=1)
        connection.flush()
        return [outcomes.get_future_index(i).value for i in range(6)]

    assert on_client(program, max_qubits=1) == [None, 1, 1, 1, None, None]


def test_branches_take_the_right_way():
    def program(connection):
        first = Qubit(connection)
        first.X()
        one = first.measure()
        outcomes = []
        for condition in (one.if_eq(1), one.if_eq(0), one.if_nz(), one.if_ez(), one.if_lt(1)):
            qubit = Qubit(connection)
            with condition:
                qubit.X()
            outcomes.append(qubit.measure())
        connection.flush()
        return [int(outcome) for outcome in outcomes]

    assert on_client(program, max_qubits=1) == [1, 0, 1, 0, 0]


def test_conditions_do_not_use_up_the_registers():
    """The SDK loses a register at every condition on a future, and has sixteen."""

    def program(connection):
        outcomes = []
        for round_ in range(40):
            condition = connection.new_array(1, init_values=[round_ % 2]).get_future_index(0)
            qubit = Qubit(connection)
            with condition.if_nz():
                qubit.X()
            outcome = qubit.measure()
            connection.flush()
            outcomes.append(int(outcome))
        return outcomes

    assert on_client(program, max_qubits=1) == [0, 1] * 20


def test_conditional_correction_across_subroutines():
    # X on a qubit that was measured as 1 brings it back to 0, whatever it was.
    def program(connection):
        ends = []
        for _ in range(12):
            qubit = Qubit(connection)
            qubit.H()
            outcome = qubit.measure(inplace=True)
            connection.flush()
            if int(outcome) == 1:
                qubit.X()
            ends.append(qubit.measure(store_array=False))
            connection.flush()
            ends[-1] = (int(outcome), int(ends[-1]))
        return ends

    ends = on_client(program, max_qubits=1)
    assert {start for start, _ in ends} == {0, 1}
    assert {end for _, end in ends} == {0}


def test_an_unused_register_result_survives_later_subroutines():
    def program(connection):
        results = []
        for bit in (1, 0, 1):
            qubit = Qubit(connection)
            if bit:
                qubit.X()
            outcome = qubit.measure(store_array=False)
            connection.flush()
            results.append(int(outcome))
        return results

    assert on_client(program, max_qubits=1) == [1, 0, 1]


def test_flushing_without_blocking_calls_back_in_order():
    def program(connection):
        log = []
        outcomes = []
        for number in range(3):
            qubit = Qubit(connection)
            qubit.X()
            outcomes.append(qubit.measure())
            connection.flush(block=False, callback=lambda n=number: log.append(n))
        log.append("sent")
        connection.block()
        log.append("blocked")
        return log, [int(outcome) for outcome in outcomes]

    assert on_client(program, max_qubits=1) == (["sent", 0, 1, 2, "blocked"], [1, 1, 1])


def test_a_blocking_flush_comes_after_those_that_do_not_block():
    def program(connection):
        log = []
        first = Qubit(connection)
        first.measure()
        connection.flush(block=False, callback=lambda: log.append("first"))
        second = Qubit(connection)
        second.measure()
        connection.flush(callback=lambda: log.append("second"))
        return log

    assert on_client(program, max_qubits=1) == ["first", "second"]


def test_what_was_not_flushed_runs_when_the_connection_closes():
    def main():
        with NetQASMConnection("client", max_qubits=1) as connection:
            qubit = Qubit(connection)
            qubit.X()
            outcome = qubit.measure()
        return int(outcome)

    assert run_clean(client=main) == {"client": 1}


# --- kept entanglement ----------------------------------------------------------------


def measured_pair(name: str, other: str, max_qubits: int, turn):
    """Half of a pair, rotated and measured, a number of times."""

    def main():
        socket = EPRSocket(other)
        outcomes = []
        with NetQASMConnection(name, epr_sockets=[socket], max_qubits=max_qubits) as connection:
            for _ in range(10):
                qubit = (socket.create_keep if name == "client" else socket.recv_keep)()[0]
                turn(qubit)
                outcome = qubit.measure()
                connection.flush()
                outcomes.append(int(outcome))
        return outcomes

    return main


TURNS = {
    # basis: the rotation that measures it, and whether the outcomes of Phi+ are equal
    "X": (lambda q: q.H(), True),
    "Y": (lambda q: q.K(), False),
    "Z": (lambda q: None, True),
}


@pytest.mark.parametrize("max_qubits", [1, 2])
@pytest.mark.parametrize("basis", TURNS)
def test_kept_pairs_are_phi_plus(basis, max_qubits):
    turn, equal = TURNS[basis]
    results = run_clean(
        client=measured_pair("client", "server", max_qubits, turn),
        server=measured_pair("server", "client", max_qubits, turn),
    )
    pairs = list(zip(results["client"], results["server"], strict=True))
    assert {(a == b) for a, b in pairs} == {equal}
    assert {a for a, _ in pairs} == {0, 1}


def test_pairs_one_after_another_in_one_subroutine():
    # The device has one qubit: each pair must be measured before the next is made.
    def half(name, other):
        def main():
            socket = EPRSocket(other)
            with NetQASMConnection(name, epr_sockets=[socket], max_qubits=1) as connection:
                outcomes = connection.new_array(5)

                def measure(connection, qubit, pair):
                    qubit.measure(future=outcomes.get_future_index(pair))

                request = socket.create_keep if name == "client" else socket.recv_keep
                request(number=5, sequential=True, post_routine=measure)
            return [int(outcome) for outcome in outcomes]

        return main

    results = run_clean(client=half("client", "server"), server=half("server", "client"))
    assert results["client"] == results["server"]


def test_the_results_of_a_request_tell_what_happened():
    def client():
        socket = EPRSocket("server")
        with NetQASMConnection("client", epr_sockets=[socket], max_qubits=1) as connection:
            (qubit,), (info,) = socket.create_keep_with_info()
            qubit.measure()
            connection.flush()
            return int(info.remote_node_id), int(info.generation_duration), int(info.raw_bell_state)

    def server():
        socket = EPRSocket("client")
        with NetQASMConnection("server", epr_sockets=[socket], max_qubits=1):
            socket.recv_keep()[0].measure()

    node, duration_us, bell_state = run_clean(client=client, server=server)["client"]
    assert node == 1
    assert bell_state == 0  # delivered as Phi+, whatever was heralded
    # Counted from the time bin in which both nodes began, which has a guard of 1 ms.
    assert 1_000 < duration_us < 50_000


# --- pairs measured directly ----------------------------------------------------------

PSI_STATES = (BellState.PSI_PLUS, BellState.PSI_MINUS)
PHI_STATES = (BellState.PHI_PLUS, BellState.PHI_MINUS)


def outcomes_and_bases(connection, result, number):
    """Outcome and basis of all pairs of a request, as the QNPU wrote them.

    The SDK's results do not tell the basis of a pair that was measured in a random one.
    """
    address = result.raw_measurement_outcome._address
    array = connection.shared_memory.get_array_part(address, slice(0, 10 * number))
    return list(zip(array[2::10], array[3::10], strict=True))


def measure_pairs(number: int, heralds=PSI_STATES, **request):
    """Measure pairs directly; the outcomes and bases at client and server."""

    def client():
        socket = EPRSocket("server")
        with NetQASMConnection("client", epr_sockets=[socket], max_qubits=1) as connection:
            results = socket.create_measure(number=number, **request)
            connection.flush()
            return outcomes_and_bases(connection, results[0], number)

    def server():
        socket = EPRSocket("client")
        with NetQASMConnection("server", epr_sockets=[socket], max_qubits=1) as connection:
            results = socket.recv_measure(number=number)
            connection.flush()
            return outcomes_and_bases(connection, results[0], number)

    protocol = PerfectProtocol(success_probability=0.02, heralds=heralds)
    link = CERTAIN.link.model_copy(update={"protocol": protocol})
    config = CERTAIN.model_copy(update={"link": link})
    results = run_clean(config=config, client=client, server=server)
    return list(zip(results["client"], results["server"], strict=True))


@pytest.mark.parametrize("heralds", [PSI_STATES, PHI_STATES])
@pytest.mark.parametrize(
    ("basis", "code", "equal"),
    [
        (EprMeasBasis.X, BASIS_X, True),
        (EprMeasBasis.Y, BASIS_Y, False),
        (EprMeasBasis.Z, BASIS_Z, True),
    ],
)
def test_pairs_measured_in_one_basis_have_the_correlations_of_phi_plus(basis, code, equal, heralds):
    pairs = measure_pairs(40, heralds, basis_local=basis, basis_remote=basis)
    assert {(a == b) for (a, _), (b, _) in pairs} == {equal}
    assert {basis for each in pairs for _, basis in each} == {code}
    zeros = sum(a == 0 for (a, _), _ in pairs)
    assert abs(zeros - 20) < Z_LIMIT * math.sqrt(10)


@pytest.mark.parametrize("random_basis", [RandomBasis.XZ, RandomBasis.XYZ])
def test_random_bases_are_uniform_independent_and_correlated_as_phi_plus(random_basis):
    shots = 450
    pairs = measure_pairs(shots, random_basis_local=random_basis, random_basis_remote=random_basis)
    bases = (BASIS_X, BASIS_Z) if random_basis is RandomBasis.XZ else (BASIS_X, BASIS_Y, BASIS_Z)
    counts = Counter((mine, theirs) for (_, mine), (_, theirs) in pairs)
    expected = shots / len(bases) ** 2
    assert set(counts) == {(mine, theirs) for mine in bases for theirs in bases}
    for count in counts.values():
        assert abs(count - expected) < Z_LIMIT * math.sqrt(expected)
    for basis in bases:
        same = {a == b for (a, mine), (b, theirs) in pairs if mine == theirs == basis}
        assert same == {basis != BASIS_Y}
    unequal = [a == b for (a, mine), (b, theirs) in pairs if mine != theirs]
    assert abs(sum(unequal) - len(unequal) / 2) < Z_LIMIT * math.sqrt(len(unequal)) / 2


@pytest.mark.parametrize("heralds", [(BellState.PHI_PLUS,), PSI_STATES, (BellState.PHI_MINUS,)])
def test_the_chsh_inequality_is_violated(heralds):
    # Client in X or Z, server in (Z + X) or (Z - X); |S| <= 2 classically, 2 sqrt 2 here.
    shots = 300
    pairs = measure_pairs(
        shots, heralds, random_basis_local=RandomBasis.XZ, random_basis_remote=RandomBasis.CHSH
    )
    correlations: dict[tuple[int, int], list[int]] = {}
    for (a, mine), (b, theirs) in pairs:
        correlations.setdefault((mine, theirs), []).append(1 if a == b else -1)
    assert len(correlations) == 4
    means = {key: sum(signs) / len(signs) for key, signs in correlations.items()}
    # X is anticorrelated with Z - X, everything else correlated.
    negative = min(means, key=means.__getitem__)
    assert negative[0] == BASIS_X
    s = sum(-mean if key == negative else mean for key, mean in means.items())
    # Each mean has a standard deviation of sqrt((1 - 1/2) / n).
    sigma = math.sqrt(sum(0.5 / len(signs) for signs in correlations.values()))
    assert abs(s - 2 * math.sqrt(2)) < Z_LIMIT * sigma


# --- a program nobody here wrote ------------------------------------------------------


def rsp_example(alpha: float, theta: float, seed: int) -> bool:
    """Whether netqasm's remote-state-preparation example computes what it should, verified.

    The example measures H Rz(alpha) |+> = Rx(alpha) |0> in the Z basis.
    """
    install()
    example = import_module("netqasm.examples.sdk_scripts.rsp")
    results = run_clean(
        seed,
        client=lambda: example.run_client(alpha=alpha, theta1=theta, r1=0, use_rsp=False),
        server=lambda: example.run_server(use_rsp=False),
    )
    assert results["client"]["p1"] in (0, 1)
    return bool(results["server"]["m2"])


@pytest.mark.parametrize(("alpha", "outcome"), [(0.0, False), (math.pi, True)])
@pytest.mark.parametrize("theta", [0.0, math.pi / 2, 11 * math.pi / 16])
def test_netqasms_rsp_example_gives_the_right_result(alpha, outcome, theta):
    assert [rsp_example(alpha, theta, seed) for seed in range(6)] == [outcome] * 6


def test_netqasms_rsp_example_has_the_right_probability():
    alpha, shots = math.pi / 2, 60
    ones = sum(rsp_example(alpha, math.pi / 4, seed) for seed in range(shots))
    assert abs(ones - shots / 2) < Z_LIMIT * math.sqrt(shots) / 2


def test_a_program_cannot_start_a_simulation():
    from netqasm.sdk.external import simulate_application

    with pytest.raises(ProgramError, match="VirtualNetwork"):
        simulate_application(None)


def test_a_program_cannot_look_at_a_state():
    from netqasm.sdk.external import get_qubit_state

    with pytest.raises(ProgramError, match="measure it"):
        get_qubit_state(None)


# --- classical messages ---------------------------------------------------------------


def test_broadcasting():
    from netqasm.sdk.external import BroadcastChannel

    def client():
        channel = BroadcastChannel("client", ["server"])
        with pytest.raises(TimeoutError):
            channel.recv(timeout=0.01)
        channel.send("question")
        return channel.recv()

    def server():
        channel = BroadcastChannel("server", ["client"])
        name, message = channel.recv()
        channel.send(f"{message} of {name}")
        return name

    results = run_clean(client=client, server=server)
    assert results == {"client": ("server", "question of client"), "server": "client"}


def test_messages_arrive_in_order_and_are_told_apart():
    def client():
        plain, numbered = Socket("client", "server"), Socket("client", "server", socket_id=7)
        for number in range(3):
            plain.send(f"plain {number}")
            numbered.send(f"numbered {number}")
        return plain.recv()

    def server():
        numbered, plain = Socket("server", "client", socket_id=7), Socket("server", "client")
        received = [numbered.recv() for _ in range(3)] + [plain.recv() for _ in range(3)]
        plain.send_silent("thanks")
        return received

    results = run_clean(client=client, server=server)
    assert results["server"] == [f"{kind} {n}" for kind in ("numbered", "plain") for n in range(3)]
    assert results["client"] == "thanks"


def test_structured_messages():
    def client():
        socket = Socket("client", "server")
        socket.send_structured(StructuredMessage("angle", "5"))
        socket.send_structured(StructuredMessage("angle", "6"))

    def server():
        socket = Socket("server", "client")
        message = socket.recv_structured()
        with pytest.raises(RuntimeError, match="recv_structured"):
            socket.recv()
        return message.header, message.payload

    assert run_clean(client=client, server=server)["server"] == ("angle", "5")


def test_only_strings_of_bounded_length_can_be_sent():
    def client():
        socket = Socket("client", "server")
        with pytest.raises(TypeError, match="not int"):
            socket.send(5)
        with pytest.raises(Exception, match="exceeds 1048576"):
            socket.send("x" * (1 << 20) + "x")
        with pytest.raises(ProgramError, match="call back"):
            Socket("client", "server", use_callbacks=True)
        return "checked"

    assert run_clean(client=client) == {"client": "checked"}


# --- several programs on a node -------------------------------------------------------


def paired_program(name: str, other: str, socket_id: int, rounds: int):
    """Create pairs with the other node and exchange the outcomes; True if all agree."""

    def main():
        pairs = EPRSocket(other, epr_socket_id=socket_id, remote_epr_socket_id=socket_id)
        messages = Socket(name, other, socket_id=socket_id)
        agreed = []
        with NetQASMConnection(name, epr_sockets=[pairs], max_qubits=1) as connection:
            for _ in range(rounds):
                request = pairs.create_keep if name == "client" else pairs.recv_keep
                outcome = request()[0].measure()
                connection.flush()
                messages.send(str(int(outcome)))
                agreed.append(messages.recv() == str(int(outcome)))
        return agreed

    return main


def test_two_programs_at_once_do_not_mix():
    system = build()
    results = run(
        system,
        client_one=paired_program("client", "server", 1, 6),
        client_two=paired_program("client", "server", 2, 6),
        server_two=paired_program("server", "client", 2, 6),
        server_one=paired_program("server", "client", 1, 6),
    )
    assert all(agreed == [True] * 6 for agreed in results.values())
    assert_nothing_left(system)


def test_a_local_program_runs_beside_one_that_makes_entanglement():
    def local():
        with NetQASMConnection("server", max_qubits=1) as connection:
            outcomes = []
            for _ in range(20):
                qubit = Qubit(connection)
                qubit.X()
                outcome = qubit.measure()
                connection.flush()
                outcomes.append(int(outcome))
        return outcomes

    system = build()
    results = run(
        system,
        client=paired_program("client", "server", 0, 4),
        server=paired_program("server", "client", 0, 4),
        server_local=local,
    )
    assert results["client"] == results["server"] == [True] * 4
    assert results["server_local"] == [1] * 20
    assert_nothing_left(system)


def test_a_system_can_run_one_program_after_another():
    system = build()
    for _ in range(3):
        results = run(
            system,
            client=paired_program("client", "server", 0, 2),
            server=paired_program("server", "client", 0, 2),
        )
        assert results == {"client": [True, True], "server": [True, True]}
        assert_nothing_left(system)
