"""Application directories of NetQASM on simulated nodes: all that come with it, and the command."""

from __future__ import annotations

import json
import math
import random
import signal
from pathlib import Path
from textwrap import dedent
from typing import Any

import netqasm
import numpy as np
import pytest
from netqasm.runtime.application import default_app_instance
from netqasm.runtime.interface.config import QuantumHardware, default_network_config
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.config import LogConfig
from netqasm.sdk.external import NetQASMConnection, Socket, get_qubit_state
from netqasm.util.yaml import load_yaml
from typer.testing import CliRunner

from qnodeos.applications import Application, load_application, run_application, simulate
from qnodeos.applications.scripts import simulate_application
from qnodeos.assembly import GenericDevice, NetworkDescription
from qnodeos.cli import app
from qnodeos.errors import ConfigurationError, ProgramError
from qnodeos.trace.events import Event
from qnodeos.trace.load import load_traces

EXAMPLES = Path(netqasm.__file__).parent / "examples"
DIRECTORIES = sorted(path.parent for path in EXAMPLES.glob("*apps/*/app_*.py"))
ANGLES = {"phi": 0.4, "theta": 1.1}
EIGHTHS = {"phi": math.pi / 8, "theta": math.pi / 4}
"""What a node of the paper can do: multiples of pi/16."""
BELL = np.array([1, 0, 0, 1]) / math.sqrt(2)

PAIR = """
    from netqasm.sdk import EPRSocket
    from netqasm.sdk.external import NetQASMConnection

    def main(app_config=None, times=1):
        outcomes = []
        socket = EPRSocket("{other}")
        with NetQASMConnection(app_config.app_name, epr_sockets=[socket]) as connection:
            for _ in range(times):
                outcomes.append(socket.{how}()[0].measure())
                connection.flush()
        print("measured", *outcomes)
        return {{"outcomes": outcomes}}
"""


def names(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """An application of two programs that measure pairs."""
    folder = tmp_path / "pair"
    folder.mkdir()
    for role, other, how in (("alice", "bob", "create_keep"), ("bob", "alice", "recv_keep")):
        text = dedent(PAIR.format(other=other, how=how))
        (folder / f"app_{role}.py").write_text(text)
    return folder


# --- what comes with NetQASM --------------------------------------------------------------


@pytest.mark.parametrize("directory", sorted(set(DIRECTORIES)), ids=names)
def test_every_application_of_netqasm_runs(directory):
    application = load_application(directory)
    inputs: dict[str, Any] = {}
    if directory.name == "anonymous_transmission":
        inputs = {"alice": {"sender": True, **ANGLES}, "david": {"receiver": True}}
    [results] = run_application(application, inputs=inputs, seed=1)
    assert set(results) == {f"app_{role}" for role in application.programs}


@pytest.mark.parametrize("device", ["generic", "nv"])
@pytest.mark.parametrize("kind", ["apps", "qne_apps"])
def test_a_teleported_state_is_the_original(kind, device):
    application = load_application(EXAMPLES / kind / "teleport")
    rounds = simulate(application, device=device, inputs={"sender": ANGLES}, rounds=8, seed=2)
    corrections = set()
    for one in rounds:
        received = one.results["app_receiver"]
        assert received["fidelity"] == pytest.approx(1)
        assert np.allclose(received["received_state"], received["original_state"])
        corrections.add((received["correction1"], received["correction2"]))
    assert len(corrections) == 4


def test_a_noisy_node_teleports_less_well():
    application = load_application(EXAMPLES / "apps" / "teleport")
    [results] = run_application(application, device="nv-noisy", inputs={"sender": EIGHTHS})
    assert 0.3 < results["app_receiver"]["fidelity"] < 0.99


# --- rounds and seeds ---------------------------------------------------------------------


def outcomes(rounds: list[dict[str, Any]]) -> list[int]:
    return [result["app_alice"]["outcomes"][0] for result in rounds]


def test_a_round_is_decided_by_its_number_and_the_seed(pair):
    application = load_application(pair)
    first = run_application(application, rounds=12, seed=5)
    assert run_application(application, rounds=12, seed=5) == first
    assert run_application(application, rounds=4, seed=5) == first[:4]
    assert outcomes(run_application(application, rounds=12, seed=6)) != outcomes(first)
    assert set(outcomes(first)) == {0, 1}
    assert all(one["app_alice"] == one["app_bob"] for one in first)


def test_random_numbers_of_programs_are_the_seeds_and_nobody_elses():
    def draws() -> tuple[float, float]:
        return random.random(), float(np.random.random())

    application = Application.from_functions({"alice": draws})
    random.seed(1)
    np.random.seed(1)
    first = run_application(application, rounds=2, seed=3)
    mine = draws()
    random.seed(1)
    np.random.seed(1)
    assert draws() == mine
    assert run_application(application, rounds=2, seed=3) == first
    assert first[0] != first[1]


def test_programs_output_and_messages_are_kept():
    rounds = simulate(load_application(EXAMPLES / "apps" / "teleport"), seed=1)
    assert "`sender` will start to teleport" in rounds[0].output["sender"]
    assert "got corrections" in rounds[0].output["receiver"]
    (corrections, angles) = rounds[0].messages["receiver"]
    assert corrections[0] == "sender"
    assert corrections[1].startswith("Corrections: ")
    assert angles == ("sender", "(0.0, 0.0)")
    assert rounds[0].messages["sender"] == []


# --- networks -----------------------------------------------------------------------------


NETWORK = """
nodes:
- {name: delft, hardware: %s, gate_fidelity: 1.0, qubits: [{id: 0, t1: 0, t2: 0}]}
- {name: paris, hardware: %s, gate_fidelity: 1.0, qubits: [{id: 0, t1: 0, t2: 0}]}
links:
- {name: a, node_name1: delft, node_name2: paris, noise_type: NoNoise, fidelity: 1.0}
"""


@pytest.mark.parametrize("hardware", ["Generic", "NV"])
def test_netqasms_network_file_and_roles(pair, hardware):
    (pair / "network.yaml").write_text(NETWORK.replace("%s", hardware))
    (pair / "roles.yaml").write_text("{alice: paris, bob: delft}")
    results = run_application(
        load_application(pair), inputs={r: {"times": 3} for r in ("alice", "bob")}
    )
    assert results[0]["app_alice"] == results[0]["app_bob"]


def test_a_role_that_the_network_has_no_node_for(pair):
    (pair / "network.yaml").write_text(NETWORK.replace("%s", "Generic"))
    with pytest.raises(ConfigurationError, match=r"network.yaml.*alice.*delft, paris.*roles.yaml"):
        run_application(load_application(pair))


def test_a_network_given_goes_before_the_file(pair):
    (pair / "network.yaml").write_text("nodes: {nowhere: {}}")
    network = NetworkDescription.fully_connected(["bob", "alice"], GenericDevice(qubits=1))
    assert run_application(load_application(pair), network=network)


# --- states -------------------------------------------------------------------------------


def test_states_of_qubits_and_of_all_they_are_entangled_with():
    seen: dict[str, Any] = {}

    def alice() -> None:
        socket = EPRSocket("bob")
        with NetQASMConnection("alice", epr_sockets=[socket]) as connection:
            half = socket.create_keep()[0]
            other = Qubit(connection)
            other.X()
            seen["half"] = get_qubit_state(half)  # flushes
            seen["pair"] = get_qubit_state(half, reduced_dm=False)
            seen["one"] = get_qubit_state(other)
            half.cnot(other)
            half.X()
            seen["three"] = get_qubit_state(other, reduced_dm=False)
            half.measure()
            connection.flush()
            with pytest.raises(ProgramError, match=r"no qubit \d at alice.*measured or freed"):
                get_qubit_state(half)
        Socket("alice", "bob").send("")

    def bob() -> None:
        socket = EPRSocket("alice")
        with NetQASMConnection("bob", epr_sockets=[socket]) as connection:
            socket.recv_keep()
            connection.flush()
            Socket("bob", "alice").recv()

    run_application(Application.from_functions({"alice": alice, "bob": bob}))
    assert np.allclose(seen["half"], np.eye(2) / 2)
    assert np.allclose(seen["pair"], np.outer(BELL, BELL))
    assert np.allclose(seen["one"], [[0, 0], [0, 1]])
    # (other, half, Bob's): |1 1 0> + |0 0 1>
    ghz = np.zeros(8)
    ghz[[0b110, 0b001]] = 1 / math.sqrt(2)
    assert np.allclose(seen["three"], np.outer(ghz, ghz))


def test_a_look_before_a_connection_gives_its_qubits_back():
    looks: list[Any] = []

    def alice() -> None:
        with NetQASMConnection("alice") as connection:
            Qubit(connection, virtual_address=0).X()

    class Look:
        def __init__(self, connection: Any) -> None:
            self.connection, self.qubit_id = connection, 0

    run_application(
        Application.from_functions({"alice": alice}),
        on_close=lambda role, connection: looks.append((role, get_qubit_state(Look(connection)))),
    )
    [(role, state)] = looks
    assert role == "alice"
    assert np.allclose(state, [[0, 0], [0, 1]])


# --- NetQASM's own way of starting --------------------------------------------------------


def keeps(me: str, other: str, how: str) -> Any:
    def program() -> None:
        socket = EPRSocket(other)
        with NetQASMConnection(me, epr_sockets=[socket]):
            getattr(socket, how)()

    return program


@pytest.mark.parametrize("network", [None, default_network_config(["Alice", "Bob"])])
def test_simulate_application_and_its_post_function(network, tmp_path):
    states: list[Any] = []

    def post_function(backend: Any) -> None:
        qubits = [backend.nodes[name].qmemory._get_qubits(0)[0] for name in ("Alice", "Bob")]
        states.extend(qubit.qstate for qubit in qubits)
        assert backend.nodes["Alice"].qmemory._get_qubits([3]) == [None]

    instance = default_app_instance(
        [
            ("Alice", keeps("Alice", "Bob", "create_keep")),
            ("Bob", keeps("Bob", "Alice", "recv_keep")),
        ]
    )
    results = simulate_application(
        instance,
        num_rounds=2,
        network_cfg=network,
        post_function=post_function,
        log_cfg=LogConfig(log_dir=str(tmp_path)),
    )
    assert results == [{"app_Alice": None, "app_Bob": None}] * 2
    assert states[0] is states[1]
    assert np.allclose(states[0].qrepr.reduced_dm(), np.outer(BELL, BELL))
    [run] = tmp_path.iterdir()
    assert load_yaml(run / "results.yaml") == results


def test_simulate_application_on_nv_hardware():
    network = default_network_config(["Alice", "Bob"], QuantumHardware.NV)
    instance = default_app_instance([("Alice", lambda: 1), ("Bob", lambda: 2)])
    for options in ({"network_cfg": network}, {"hardware": "nv"}):
        results = simulate_application(instance, enable_logging=False, **options)
        assert results == [{"app_Alice": 1, "app_Bob": 2}]
    with pytest.raises(ConfigurationError, match="hardware 'ion'"):
        simulate_application(instance, enable_logging=False, hardware="ion")


# --- logs ---------------------------------------------------------------------------------


def test_log_files_are_those_of_netqasm(tmp_path):
    application = load_application(EXAMPLES / "apps" / "teleport")
    results = run_application(application, rounds=2, log_dir=tmp_path, seed=1)
    [run] = tmp_path.iterdir()
    written = load_yaml(run / "results.yaml")
    assert [each["app_sender"] for each in written] == [each["app_sender"] for each in results]
    names = {path.name for path in (run / "1").iterdir()}
    assert {"sender_app_log.yaml", "receiver_output.txt"} <= names
    [first, second] = load_yaml(run / "1" / "sender_app_log.yaml")
    sent = results[1]["app_sender"]
    assert (first["LOG"], second["LOG"]) == (f"m1 = {sent['m1']}", f"m2 = {sent['m2']}")
    messages = load_yaml(run / "1" / "receiver_class_comm.yaml")
    assert [(entry["INS"], entry["SEN"]) for entry in messages] == [("RECV", "sender")] * 2


def test_runs_of_the_same_second_have_directories_of_their_own(tmp_path):
    application = Application.from_functions({"alice": lambda: 1})
    for _ in range(3):
        run_application(application, log_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


# --- the command --------------------------------------------------------------------------


def command(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["run", *map(str, arguments)], catch_exceptions=code == 0)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_run_app_dir(pair, tmp_path):
    said = command(
        "--app-dir", pair, "--seed", 3, "--json", tmp_path / "r.json", "--out", tmp_path / "o"
    )
    assert "alice| measured" in said
    assert "1 round in" in said
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["application"] == "pair"
    assert written["backend"] == "behavioural (simulated)"
    assert written["complete"] is True
    [one] = written["rounds"]
    assert one["results"]["app_alice"] == one["results"]["app_bob"]
    assert json.loads((tmp_path / "o" / "results.json").read_text()) == written
    assert list((tmp_path / "o").glob("*/results.yaml"))


def test_inputs_of_the_command_line(pair, tmp_path):
    (tmp_path / "in.yaml").write_text("alice: {times: 2}\nbob.times: 3")
    command("--app-dir", pair, "--input", "times=1", "--inputs", tmp_path / "in.yaml",
            "--input", "bob.times=2", "--json", tmp_path / "r.json")  # fmt: skip
    [one] = json.loads((tmp_path / "r.json").read_text())["rounds"]
    assert [len(result["outcomes"]) for result in one["results"].values()] == [2, 2]


def test_networks_of_the_command_line(pair, tmp_path):
    links = "links: [{between: [bob, hub]}, {between: [hub, alice]}]"
    (tmp_path / "ours.yaml").write_text(f"nodes: {{alice: {{}}, hub: {{}}, bob: {{}}}}\n{links}")
    names = NETWORK.replace("%s", "Generic").replace("delft", "alice").replace("paris", "bob")
    (tmp_path / "theirs.yaml").write_text(names)
    for name in ("ours", "theirs"):
        command("--app-dir", pair, "--network", tmp_path / f"{name}.yaml", "--json", tmp_path / "r")
        [one] = json.loads((tmp_path / "r").read_text())["rounds"]
        assert one["results"]["app_alice"] == one["results"]["app_bob"]


def test_traces_of_the_command_line(pair, tmp_path):
    out = tmp_path / "out"
    said = ["--seed", 3, "--rounds", 2, "--out", out]
    command("--app-dir", pair, *said, "--trace", "csv,perfetto")
    rounds = sorted(path.parent.name for path in out.glob("*/*/trace.json"))
    assert rounds == ["0", "1"]
    [timeline] = [json.loads(path.read_text()) for path in out.glob("*/0/trace.json")]
    processes = {
        event["args"]["name"]
        for event in timeline["traceEvents"]
        if event["ph"] == "M" and event["name"] == "process_name"
    }
    assert {"alice CNPU", "alice QNPU", "bob CNPU", "bob QNPU"} <= processes
    [qnpu] = load_traces([next(out.glob("*/1/trace_bob_qnpu.csv"))]).nodes
    assert np.count_nonzero(qnpu.qnpu["event"] == Event.QNP_BQ_DELIVERED) == 1


def test_traces_need_a_place(pair):
    result = CliRunner().invoke(app, ["run", "--app-dir", str(pair), "--trace", "csv"])
    assert isinstance(result.exception, ConfigurationError)
    assert "--out" in str(result.exception)


def test_many_rounds(pair):
    said = command("--app-dir", pair, "--rounds", 20, "--device", "nv")
    assert "alice: " in said
    assert " x {'outcomes': [1]}" in said
    assert "measured" not in said


def test_a_program_that_fails(pair, tmp_path):
    (pair / "app_bob.py").write_text("def main():\n    raise ValueError('no luck')\n")
    said = command("--app-dir", pair, "--json", tmp_path / "r.json", code=1)
    assert f"bob: ValueError: no luck ({pair / 'app_bob.py'}, line 2)" in said
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["complete"] is False
    assert written["rounds"][0]["errors"]["bob"] == {"kind": "ValueError", "text": "no luck"}


def test_ctrl_c_keeps_the_rounds_that_are_done(pair, tmp_path):
    (pair / "app_bob.py").write_text(
        dedent("""
            import os, signal
            rounds = []

            def main():
                rounds.append(0)
                if len(rounds) == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                return len(rounds)
        """)
    )
    (pair / "app_alice.py").write_text("def main():\n    return 7\n")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        said = command("--app-dir", pair, "--rounds", 9, "--json", tmp_path / "r.json", code=130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Interrupted: 2 rounds are done and kept." in said
    written = json.loads((tmp_path / "r.json").read_text())
    assert [one["results"]["app_bob"] for one in written["rounds"]] == [1, 2]
    assert written["complete"] is False


@pytest.mark.parametrize("script", ["epr.py", "rsp.py"])
def test_scripts_of_netqasm(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = command(
        "--sdk-script", EXAMPLES / "sdk_scripts" / script, "--json", "r.json", "--seed", 1
    )
    assert len(json.loads(Path("r.json").read_text())["rounds"]) == 1
    if script == "rsp.py":
        assert said.strip() in {
            str([{"app_client": {"p1": bit}, "app_server": {"m2": 0}}]) for bit in (0, 1)
        }


def test_a_script_that_simulates_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("def main(): pass")
    assert "did not call simulate_application" in command("--sdk-script", script)


def test_a_script_that_raises(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise ValueError('no')")
    command("--sdk-script", script, code=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name one of"),
        (["app.py", "--app-dir", "."], "name one of"),
        (["app.py"], "programs run on a node"),
        (["--app-dir", ".", "--pool", "3"], "only on running services"),
        (["app.py", "--node", "n.yaml", "--seed", "3"], "only on simulated nodes"),
        (["--sdk-script", "s.py", "--node", "n.yaml"], "simulates its own nodes"),
        (["--sdk-script", "s.py", "--workers", "2"], "in one process"),
        (["app.py", "--node", "n.yaml", "--workers", "2"], "only on simulated nodes"),
        (["--app-dir", ".", "--network", "n.yaml", "--device", "nv"], "name one"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments, words):
    result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
