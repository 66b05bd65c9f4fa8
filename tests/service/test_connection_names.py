"""The names that `netqasm.sdk.external` imports for hardware, and what they do."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from netqasm.sdk import EPRSocket
from netqasm.sdk.classical_communication.message import StructuredMessage
from netqasm.sdk.connection import BaseNetQASMConnection

from qnodeos.api.host import OpenErSocket, decode_host_message
from qnodeos.api.host_wire import Netqasm, Register
from qnodeos.connection import (
    ABCQNodeOSConnection,
    ApplicationRole,
    QNodeOSConnection,
    QNodeOSConnectionFactory,
    TcpIPConnectionSpecification,
    UnixConnectionSpecification,
)
from qnodeos.errors import (
    ApplicationLostError,
    ConfigurationError,
    QnpuUnavailableError,
    SubroutineFailedError,
)
from qnodeos.socket import AppSocketRole, ClientAppSocket, ServerAppSocket
from qnodeos.trace.events import Event
from qnodeos.transport import TlsFiles
from tests.service.fake_qnpu import DEADLINE_S, FakeQnpu

IDS = {"here": 1, "there": 2}

SCRIPT = """
import sys, threading, warnings
from netqasm.runtime.settings import set_is_using_hardware
set_is_using_hardware(True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from netqasm.sdk import external
from netqasm.sdk import Qubit
import socket
assert hasattr(socket, "create_server"), "the standard library's socket is shadowed"

spec = external.TcpIPConnectionSpecification("127.0.0.1", int(sys.argv[1]))
assert isinstance(spec, external.ConnectionSpecification)
factory = external.QNodeOSConnectionFactory(spec, "here")
with external.ServerAppSocket("here", "there", "127.0.0.1", 0) as server:
    port = server.address.port
    def other():
        with external.ClientAppSocket("there", "here", "127.0.0.1", port) as client:
            client.send(client.recv() + " there")
    thread = threading.Thread(target=other)
    thread.start()
    server.send("from here to")
    said = server.recv()
    thread.join()
with factory.create(external.ApplicationRole.CLIENT, max_qubits=1) as connection:
    assert isinstance(connection, external.ABCQNodeOSConnection)
    qubit = Qubit(connection)
    qubit.X()
    outcome = qubit.measure(store_array=False)
    connection.flush()
print(said, int(outcome))
"""


def test_netqasm_imports_the_names_and_a_script_runs():
    with FakeQnpu() as qnpu:
        qnpu.node.device.measurements.extend([1])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT, str(qnpu.address.port)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "from here to there 1\n", "")
        qnpu.wait_for(lambda qnpu: len(qnpu.closed) == 2)


# --- connections ----------------------------------------------------------------------


def factory(qnpu: FakeQnpu, end_node: str = "here", **options) -> QNodeOSConnectionFactory:
    spec = TcpIPConnectionSpecification(qnpu.address.host, qnpu.address.port)
    return QNodeOSConnectionFactory(spec, end_node, timeout_s=DEADLINE_S, **options)


def test_a_connection_is_the_sdks_and_ours():
    with FakeQnpu() as qnpu:
        with factory(qnpu).create("program", max_qubits=1) as connection:
            assert isinstance(connection, BaseNetQASMConnection)
            assert isinstance(connection, ABCQNodeOSConnection)
            assert isinstance(connection, QNodeOSConnection)
            assert (connection.app_name, connection.node_name) == ("program", "here")
            array = connection.new_array(1, init_values=[7])
            connection.flush()
            assert int(array.get_future_index(0)) == 7
        events = connection.trace.columns()["event"].tolist()
        assert events == [Event.SUBROUTINE_SEND_ATTEMPT, Event.SUBROUTINE_SENT, Event.RESULT_RCVD]
        qnpu.wait_for(lambda qnpu: len(qnpu.closed) == 2)
        connection.close()  # again, which changes nothing


def test_other_nodes_are_known_by_their_numbers():
    with FakeQnpu() as qnpu:
        socket = EPRSocket("server")
        made = factory(qnpu, nodes=IDS, applications={"server": "there"})
        with made.create(ApplicationRole.CLIENT, epr_sockets=[socket]) as connection:
            assert connection.app_name == "client"
        raws = [message.raw for message in qnpu.messages(Netqasm)]
        [opened] = [raw for raw in raws if raw[0] == 1]
        message = decode_host_message(opened, max_bytes=100)
        assert isinstance(message, OpenErSocket)
        assert message.remote_node_id == 2


def test_an_unknown_application_leaves_nothing_open():
    with FakeQnpu() as qnpu:
        with pytest.raises(ConfigurationError, match="unknown application 'mars'"):
            factory(qnpu, nodes=IDS).create("program", epr_sockets=[EPRSocket("mars")])
        qnpu.wait_for(lambda qnpu: qnpu.closed == [0])


def test_priority_is_passed_on():
    with FakeQnpu() as qnpu:
        with pytest.raises(SubroutineFailedError), factory(qnpu).create("program", priority=2):
            pass  # the fake registers nothing
        assert qnpu.messages(Register)[0].priority == 2


def test_a_qnpu_of_another_node_or_none():
    with FakeQnpu() as qnpu:
        with pytest.raises(ConfigurationError, match="node here, not elsewhere"):
            factory(qnpu, "elsewhere").create("program")
        qnpu.stop()
        with pytest.raises(QnpuUnavailableError):
            factory(qnpu).create("program")


def test_from_a_node_file(tmp_path):
    with FakeQnpu() as qnpu:
        node = {
            "name": "here",
            "node_id": 1,
            "device": {"link": "loopback"},
            "api": {"listen": [str(qnpu.address)]},
        }
        path = tmp_path / "node.yaml"
        path.write_text(json.dumps(node))
        with QNodeOSConnectionFactory.from_node_file(path).create("program") as connection:
            assert connection.node_name == "here"
        node["api"] = {"listen": ["unix:here.sock"]}
        path.write_text(json.dumps(node))
        with pytest.raises(QnpuUnavailableError, match=r"here\.sock"):
            QNodeOSConnectionFactory.from_node_file(path).create("program")


def test_specifications(tmp_path):
    files = TlsFiles(certificate=tmp_path, key=tmp_path, authority=tmp_path)
    tcp = TcpIPConnectionSpecification("example.org", 7, files)
    assert (str(tcp.address), tcp.tls) == ("tcp:example.org:7", files)
    unix = UnixConnectionSpecification(tmp_path / "s")
    assert (str(unix.address), unix.tls) == (f"unix:{tmp_path / 's'}", None)


# --- sockets --------------------------------------------------------------------------


def test_sockets_of_their_own():
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        server = stack.enter_context(ServerAppSocket("alice", "bob", "127.0.0.1", 0, socket_id=3))
        assert server.role is AppSocketRole.SERVER
        assert server.address is not None
        client = stack.enter_context(
            ClientAppSocket("bob", "alice", "127.0.0.1", server.address.port, socket_id=3)
        )
        assert (client.role, client.address) == (AppSocketRole.CLIENT, None)
        client.send("hello")
        assert server.recv() == "hello"
        server.send_structured(StructuredMessage("header", [1, "two"]))
        assert client.recv_structured() == StructuredMessage("header", [1, "two"])
        with pytest.raises(RuntimeError):
            client.recv(block=False)
        waiting = pool.submit(client.recv)
        server.close()
        with pytest.raises(ApplicationLostError, match="its programs have ended"):
            waiting.result(DEADLINE_S)


def test_a_socket_whose_other_end_never_comes():
    with (
        ServerAppSocket("alice", "bob", "127.0.0.1", 0, connect_timeout=0.0) as server,
        pytest.raises(ApplicationLostError),
    ):
        server.recv()


def test_a_socket_on_a_port_that_is_taken():
    with ServerAppSocket("alice", "bob", "127.0.0.1", 0) as server:
        assert server.address is not None
        with pytest.raises(ConfigurationError, match="cannot listen"):
            ServerAppSocket("alice", "bob", "127.0.0.1", server.address.port)
