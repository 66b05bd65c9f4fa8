"""SquidASM-style programs and scripts on simulated nodes."""

from __future__ import annotations

import math
import re
import runpy
from pathlib import Path

import pytest
from netqasm.sdk import Qubit
from netqasm.sdk.classical_communication.message import StructuredMessage
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.applications.squidasm import simulation
from qnodeos.applications.squidasm.config import (
    LinkConfig,
    NVQDeviceConfig,
    StackConfig,
    StackNetworkConfig,
)
from qnodeos.applications.squidasm.inspection import get_qubit_state
from qnodeos.applications.squidasm.log import LogManager
from qnodeos.applications.squidasm.names import installed
from qnodeos.applications.squidasm.networks import (
    create_complete_graph_network,
    create_two_node_network,
)
from qnodeos.applications.squidasm.program import Program, ProgramMeta
from qnodeos.applications.squidasm.routines import (
    distributed_CNOT_control,
    distributed_CNOT_target,
    distributed_CPhase_control,
    distributed_CPhase_target,
)
from qnodeos.applications.squidasm.script import run_script
from qnodeos.applications.squidasm.simulation import run, sim_time
from qnodeos.applications.squidasm.states import KETS, dm_fidelity
from qnodeos.errors import ConfigurationError, ProgramError, StalledProgramsError
from sim.network import RunLimits

EXAMPLES = Path(__file__).parents[2] / "examples" / "squidasm"
PEERS = {"Alice": "Bob", "Bob": "Alice"}


class Here(Program):
    """A program of one function, for tests."""

    def __init__(self, name, run, max_qubits=2):
        self._peer, self._run, self._max_qubits = PEERS[name], run, max_qubits

    @property
    def meta(self):
        return ProgramMeta("test", [self._peer], [self._peer], self._max_qubits)

    def run(self, context):
        peer = self._peer
        return self._run(
            context.connection, context.csockets[peer], context.epr_sockets[peer], context
        )


def run_both(alice, bob, config=None, num_times=1, max_qubits=2):
    programs = {"Bob": Here("Bob", bob, max_qubits), "Alice": Here("Alice", alice, max_qubits)}
    return run(config or create_two_node_network(), programs, num_times)


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    monkeypatch.setattr(simulation.session, "seed", 1)
    monkeypatch.setattr(simulation.session, "limits", RunLimits(duration_s=1, steps=200_000))


# --- whole scripts ------------------------------------------------------------------------


def test_teleportation_script(capsys):
    run_script(EXAMPLES / "teleport.py")
    assert capsys.readouterr().out == "average fidelity with 0% noise in the pair: 1.000\n"
    run_script(EXAMPLES / "teleport.py", ["0.4"])
    assert "0.800" in capsys.readouterr().out


def test_ghz_script_on_three_nodes(capsys):
    outcomes = run_script(EXAMPLES / "ghz.py", seed=3)["outcomes"]
    assert set(outcomes) == {(0, 0, 0), (1, 1, 1)}
    assert len(capsys.readouterr().out.splitlines()) == 10


@pytest.mark.parametrize(
    ("alpha", "ideal"), [(0.0, 0.0), (math.pi / 2, 0.5), (math.pi, 1.0)], ids=["0", "pi/2", "pi"]
)
def test_delegated_computation_on_nv_nodes(alpha, ideal):
    with installed():
        main, runs = runpy.run_path(str(EXAMPLES / "bqc.py"))["main"], 60
    # A pair with F = 0.95 gives a wrong result with probability 2 (1 - F) / 3, a readout that
    # takes 5 % of |0> for 1 and 0.5 % of |1> for 0 errs at both nodes.
    flipped = 2 * 0.05 / 3 + (0.05 + 0.005) / 2
    one = ideal + flipped * (1 - 2 * ideal)
    expected = one * 0.995 + (1 - one) * 0.05
    assert main(alpha, runs) == pytest.approx(
        expected, abs=4.5 * math.sqrt(expected * (1 - expected) / runs)
    )


def on_nv_nodes(names, qubits):
    return create_complete_graph_network(
        names,
        "perfect",
        None,
        qdevice_typ="nv",
        qdevice_cfg=NVQDeviceConfig.perfect_config(num_qubits=qubits),
    )


def test_the_same_programs_on_nv_nodes_with_memories():
    with installed():
        ghz = runpy.run_path(str(EXAMPLES / "ghz.py"))
        teleport = runpy.run_path(str(EXAMPLES / "teleport.py"))
    nodes = ghz["NODES"]
    results = run(
        on_nv_nodes(nodes, 3), {name: ghz["GhzProgram"](name) for name in nodes}, num_times=6
    )
    outcomes = [[run["outcome"] for run in of_node] for of_node in results]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    programs = {"Alice": teleport["Sender"](0.7, 1.1), "Bob": teleport["Receiver"]()}
    (sent,), (received,) = run(on_nv_nodes(list(programs), 2), programs)
    fidelity = dm_fidelity(sent["sent"], received["received"], squared=True)
    # Gates have no errors, but qubits decay meanwhile: some ms of T2 = 0.3 s and 1.5 s.
    assert 0.98 < fidelity < 0.999


def test_the_same_seed_gives_the_same_results():
    first, second, other = (
        run_script(EXAMPLES / "ghz.py", seed=seed)["outcomes"] for seed in (5, 5, 6)
    )
    assert first == second
    assert first != other


# --- what programs can do -------------------------------------------------------------------


def test_results_come_by_node_in_the_order_of_the_configuration():
    def alice(connection, csocket, epr_socket, context):
        outcome = epr_socket.create_keep()[0].measure()
        yield from connection.flush()
        return "Alice", int(outcome)

    def bob(connection, csocket, epr_socket, context):
        outcome = epr_socket.recv_keep()[0].measure()
        yield from connection.flush()
        return "Bob", int(outcome)

    results = run_both(alice, bob, num_times=12)  # which names Bob's program first
    assert [{name for name, _ in of_node} for of_node in results] == [{"Alice"}, {"Bob"}]
    of_alice, of_bob = ([outcome for _, outcome in of_node] for of_node in results)
    assert of_alice == of_bob
    assert set(of_alice) == {0, 1}


def test_a_node_without_a_program_has_no_results():
    def alone(connection, csocket, epr_socket, context):
        qubit = Qubit(connection)
        qubit.X()
        outcome = qubit.measure()
        yield from connection.flush()
        return int(outcome)

    assert run(create_two_node_network(), {"Bob": Here("Bob", alone)}) == [[], [1]]


def test_pairs_can_be_measured_at_once():
    def alice(connection, csocket, epr_socket, context):
        pairs = epr_socket.create_measure(number=6)
        yield from connection.flush()
        return [int(pair.measurement_outcome) for pair in pairs]

    def bob(connection, csocket, epr_socket, context):
        pairs = epr_socket.recv_measure(number=6)
        yield from connection.flush()
        return [int(pair.measurement_outcome) for pair in pairs]

    of_alice, of_bob = run_both(alice, bob)
    assert of_alice == of_bob
    assert set(of_alice[0]) == {0, 1}


def test_messages_arrive_as_they_were_sent():
    structured = StructuredMessage("bases", [(0, 1), (1, 0)])

    def alice(connection, csocket, epr_socket, context):
        csocket.send("text")
        csocket.send(7)
        csocket.send(0.25)
        csocket.send_int(-3)
        csocket.send_float(math.pi)
        csocket.send_structured(structured)
        structured.payload.append("changed after it was sent")
        return {}

    def bob(connection, csocket, epr_socket, context):
        return [
            (yield from csocket.recv()),
            (yield from csocket.recv()),
            (yield from csocket.recv()),
            (yield from csocket.recv_int()),
            (yield from csocket.recv_float()),
            (yield from csocket.recv_structured()),
        ]

    _, ((text, whole, fraction, negative, pi, message),) = run_both(alice, bob)
    assert (text, whole, fraction, negative, pi) == ("text", 7, 0.25, -3, math.pi)
    assert (message.header, message.payload) == ("bases", [(0, 1), (1, 0)])


def test_messages_take_the_time_of_their_link():
    def alice(connection, csocket, epr_socket, context):
        csocket.send("")
        return sim_time()

    def bob(connection, csocket, epr_socket, context):
        yield from csocket.recv()
        return sim_time()

    ((sent_ns,), (received_ns,)) = run_both(alice, bob, create_two_node_network(clink_delay=5e5))
    assert received_ns - sent_ns == 5e5


def test_a_flush_without_yield_from_does_nothing():
    def alice(connection, csocket, epr_socket, context):
        outcome = Qubit(connection).measure()
        connection.flush()
        assert outcome.value is None
        yield from connection.flush()
        return int(outcome)

    assert run(create_two_node_network(), {"Alice": Here("Alice", alice)})[0] == [0]


@pytest.mark.parametrize(
    ("control", "target", "expected"),
    [
        (distributed_CNOT_control, distributed_CNOT_target, (1, 1)),
        (distributed_CPhase_control, distributed_CPhase_target, (1, 0)),
    ],
)
def test_gates_between_nodes(control, target, expected):
    def alice(connection, csocket, epr_socket, context):
        qubit = Qubit(connection)
        qubit.X()
        yield from control(context, "Bob", qubit)
        outcome = qubit.measure()
        yield from connection.flush()
        return int(outcome)

    def bob(connection, csocket, epr_socket, context):
        qubit = Qubit(connection)
        yield from target(context, "Alice", qubit)
        outcome = qubit.measure()
        yield from connection.flush()
        return int(outcome)

    of_alice, of_bob = run_both(alice, bob)
    assert (of_alice[0], of_bob[0]) == expected


def test_the_state_of_a_pair_on_nv_nodes():
    config = StackNetworkConfig(
        stacks=[
            StackConfig(name=name, qdevice_typ="nv", qdevice_cfg={"num_qubits": 2})
            for name in PEERS
        ],
        links=[
            LinkConfig(
                stack1="Alice", stack2="Bob", typ="depolarise",
                cfg={"fidelity": 0.85, "t_cycle": 1000},
            )
        ],
    )  # fmt: skip

    def alice(connection, csocket, epr_socket, context):
        half = epr_socket.create_keep()[0]
        yield from connection.flush()
        yield from csocket.recv()
        state = get_qubit_state(half, "Alice", full_state=True)
        csocket.send("")
        return state

    def bob(connection, csocket, epr_socket, context):
        epr_socket.recv_keep()
        yield from connection.flush()
        csocket.send("")
        yield from csocket.recv()

    ((state,), _) = run_both(alice, bob, config)
    fidelity = (KETS["b00"].conj().T @ state @ KETS["b00"]).real.item()
    # T2 of the electrons takes a little while they wait.
    assert 0.83 < fidelity <= 0.8501


def test_programs_log_with_virtual_time(tmp_path):
    LogManager.log_to_file(tmp_path / "log")
    logger, level = LogManager.get_stack_logger("Bob"), LogManager.get_log_level()
    LogManager.set_log_level("INFO")

    def bob(connection, csocket, epr_socket, context):
        yield from csocket.recv()
        logger.info("it is here")

    def alice(connection, csocket, epr_socket, context):
        csocket.send("")
        return {}

    try:
        run_both(alice, bob, create_two_node_network(clink_delay=5000))
    finally:
        LogManager.set_log_level(level)
        stack = LogManager.get_stack_logger()
        file = stack.handlers[-1]
        stack.removeHandler(file)
        file.close()
    line = re.fullmatch(
        r"INFO:(\d+)\.0 ns:Stack\.Bob:it is here\n", (tmp_path / "log").read_text("utf-8")
    )
    assert line is not None
    assert 5000 <= int(line[1]) < 10_000  # the message's way, after a tick or two of the QNPU


# --- what goes wrong ------------------------------------------------------------------------


def idle(connection, csocket, epr_socket, context):
    yield from connection.flush()


def test_a_message_of_the_wrong_kind_is_named():
    def alice(connection, csocket, epr_socket, context):
        csocket.send("0,1")
        return {}

    def bob(connection, csocket, epr_socket, context):
        return (yield from csocket.recv_int())

    with pytest.raises(ProgramError, match=r"Bob expects a whole number from Alice.*'0,1'"):
        run_both(alice, bob)


def test_a_message_that_never_comes_is_told():
    def bob(connection, csocket, epr_socket, context):
        return (yield from csocket.recv())

    with pytest.raises(StalledProgramsError, match=r"Bob.*a message from Alice"):
        run_both(idle, bob, num_times=3)


def test_a_program_that_polls_for_ever_is_stopped():
    def bob(connection, csocket, epr_socket, context):
        while True:
            try:
                return (yield from csocket.recv(block=False))
            except RuntimeError:
                continue

    with pytest.raises(StalledProgramsError, match="the limit"):
        run_both(idle, bob)


def test_the_error_of_a_program_says_which_run_it_was():
    runs = []

    def alice(connection, csocket, epr_socket, context):
        runs.append(1)
        yield from connection.flush()
        if len(runs) == 2:
            raise ZeroDivisionError("in the program")

    with pytest.raises(ProgramError, match=r"Alice \(run 2 of 3\).*in the program"):
        run_both(alice, idle, num_times=3)


def test_yield_without_from_is_explained():
    def alice(connection, csocket, epr_socket, context):
        yield connection.flush()

    with pytest.raises(ProgramError, match="write `yield from`"):
        run_both(alice, idle)


def test_too_many_qubits_are_refused():
    def alice(connection, csocket, epr_socket, context):
        for _ in range(3):
            Qubit(connection)
        yield from connection.flush()

    with pytest.raises(ProgramError, match="qubit"):
        run_both(alice, idle, max_qubits=5)


def test_a_program_for_a_node_that_is_not_there():
    with pytest.raises(ConfigurationError, match=r"'Carol', which is no node.*Alice, Bob"):
        run(create_two_node_network(), {"Carol": Here("Bob", idle)})


def test_a_peer_that_is_not_there():
    program = Here("Alice", idle)
    program._peer = "Carol"
    with pytest.raises(ProgramError, match="Carol"):
        run(create_two_node_network(), {"Alice": program})


def test_a_script_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="is no file"):
        run_script(tmp_path / "missing.py")


# --- the command --------------------------------------------------------------------------


def command(*arguments):
    return CliRunner().invoke(cli.app, ["squidasm", *arguments])


def test_the_command_runs_a_script_with_its_arguments(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import random, sys\n"
        "import helper\n"
        "from squidasm.util import create_two_node_network\n"
        "second = create_two_node_network().stacks[1].name\n"
        "print(helper.WORD, sys.argv[1:], random.random(), second)\n",
        "utf-8",
    )
    (tmp_path / "helper.py").write_text("WORD = 'beside'", "utf-8")
    first, second = (command(str(script), "--seed", "4", "--", "1", "--x") for _ in range(2))
    assert first.exit_code == 0
    assert first.output == second.output
    assert first.output.startswith("beside ['1', '--x'] 0.")
    assert first.output.endswith(" Bob\n")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("import netsquid.components", "UnavailableNameError"),
        ("from squidasm.util.util import create_two_node_network as c\nc(['a'])", "Configuration"),
    ],
)
def test_the_command_leaves_refusals_to_the_front(tmp_path, text, kind):
    (tmp_path / "script.py").write_text(text, "utf-8")
    done = command(str(tmp_path / "script.py"))
    assert kind in type(done.exception).__name__


def test_the_command_shows_what_the_script_itself_raised(tmp_path, capfd):
    (tmp_path / "script.py").write_text("import a_module_that_is_not_there", "utf-8")
    done = command(str(tmp_path / "script.py"))
    assert done.exit_code == 1
    assert "a_module_that_is_not_there" in done.output + capfd.readouterr().err


def test_the_command_stops_what_takes_too_long(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from squidasm.run.stack.run import run\n"
        "from squidasm.sim.stack.program import Program, ProgramMeta\n"
        "from squidasm.util import create_two_node_network\n"
        "class Forever(Program):\n"
        "    meta = ProgramMeta('forever', [], ['Bob'], 1)\n"
        "    def run(self, context):\n"
        "        while True:\n"
        "            context.epr_sockets['Bob'].create_keep()[0].measure()\n"
        "            yield from context.connection.flush()\n"
        "class Other(Forever):\n"
        "    meta = ProgramMeta('other', [], ['Alice'], 1)\n"
        "    def run(self, context):\n"
        "        while True:\n"
        "            context.epr_sockets['Alice'].recv_keep()[0].measure()\n"
        "            yield from context.connection.flush()\n"
        "run(create_two_node_network(), {'Alice': Forever(), 'Bob': Other()})\n",
        "utf-8",
    )
    done = command(str(script), "--limit", "0.01")
    assert isinstance(done.exception, StalledProgramsError)
    assert "0.01 s of virtual time are over, the limit" in str(done.exception)
