"""`qnodeos serve` as the process it is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qnodeos.api.host import RegisterResult
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.engine import DevicePort
from qnodeos.errors import QnpuRefusedError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.trace import Event
from qnodeos.trace.csvformat import read_trace_csv
from qnodeos.transport import Address
from tests.service.service_bench import MEASURE_ONE, nv
from tests.unit.kernel_programs import init_app, register

DEADLINE_S = 60.0


def node_file(folder: Path, **fields: Any) -> Path:
    """A node that asks the system for nothing: other tests run beside it."""
    node = {
        "name": "client",
        "node_id": 0,
        "device": {"link": "loopback"},
        "api": {"listen": ["unix:api.sock"]},
        "realtime": {
            "tick_priority": 0,
            "policy_priority": 0,
            "lock_memory": False,
            "mode": "event-paced",
        },
    }
    path = folder / "node.yaml"
    path.write_text(json.dumps(node | fields), "utf-8")
    return path


class Served:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.address = Address(path=str(folder / "api.sock"))

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; exit code and all it has said."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, output


@contextmanager
def served(path: Path, *options: str) -> Iterator[Served]:
    """A service that has said that it is ready."""
    name = f"\0qnodeos-test-{os.getpid()}-{id(path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(name)
        supervisor.settimeout(DEADLINE_S)
        process = subprocess.Popen(
            [sys.executable, "-m", "qnodeos", "serve", path.name, *options],
            cwd=path.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": "@" + name[1:]},
        )
        try:
            while not supervisor.recv(4_096).startswith(b"READY=1"):
                assert process.poll() is None
            yield Served(process, path.parent)
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def folder():
    # The path of a socket is short, that of pytest's folder may not be.
    with TemporaryDirectory(prefix="qn") as name:
        yield Path(name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(folder, number):
    path = node_file(folder)
    with (
        served(path, "--trace", "traces", "--json", "out/counted.json") as service,
        QnpuClient.connect(service.address) as client,
    ):
        assert client.welcome.incarnation > 0
        assert client.await_reply(client.submit(init_app(0)), DEADLINE_S).error is None
        reply = client.await_reply(client.submit(nv(0, MEASURE_ONE)), DEADLINE_S)
        assert reply.error is None
        # The device answers 0 to everything.
        assert reply.results == (RegisterResult(register("M0"), 0),)
        code, output = service.end(number)
        with pytest.raises(QnpuRefusedError, match="stopping"):
            client.events(DEADLINE_S)
    assert code == 0
    assert "client: listening on unix:" in output
    assert "client: device attached, event-paced over loopback" in output
    assert f"client: ended by signal {int(number)}" in output
    assert not Path(service.address.path).exists()
    with (folder / "traces" / "client-qnpu.csv").open(encoding="utf-8") as stream:
        trace = read_trace_csv(stream)
    assert trace.unit_ns == 10_000
    assert list(trace.columns["event"]).count(Event.PROCMGR_SUBROUTINE_DONE) == 1
    assert list(trace.columns["event"]).count(Event.QDEVICE_PRODUCE_MSR_CMD) == 1
    counted = json.loads((folder / "out" / "counted.json").read_text("utf-8"))
    assert counted["kernel"]["subroutines_done"] == 1
    assert counted["engine"]["instructions"] == 3


def test_a_second_one_at_the_same_address_is_refused(folder):
    path = node_file(folder)
    with served(path) as service:
        done = subprocess.run(
            [sys.executable, "-m", "qnodeos", "serve", str(path)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 2
        assert "api.sock is in use" in done.stderr
        with QnpuClient.connect(service.address) as client:
            client.ping(DEADLINE_S)


def test_it_is_ready_before_its_device(folder):
    path = node_file(folder, device={"link": "shm", "path": "nowhere.channel"})
    with served(path) as service:
        with QnpuClient.connect(service.address) as client:
            error = client.await_reply(client.submit(init_app(0)), DEADLINE_S).error
            assert error is not None
            assert error.kind == "DeviceFailureError"
            assert "nowhere.channel" in error.text
        code, output = service.end(signal.SIGTERM)
    assert code == 0
    assert "client: no device: " in output


def test_a_peer_port_that_is_taken_is_said(folder):
    """Also with a device there, when it is noticed late."""
    nv = Capabilities("nv", (0,), (), frozenset(Opcode), 10_000)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        DevicePort.create(
            folder / "a.channel", name="a", tick_ns=10_000, epoch_ns=0, capabilities=nv
        ),
    ):
        place = f"tcp:127.0.0.1:{other.getsockname()[1]}"
        path = node_file(
            folder,
            device={"link": "shm", "path": "a.channel"},
            peers={"server": {"node_id": 1, "address": "tcp:127.0.0.1:9"}},
            peer={"listen": place},
        )
        done = subprocess.run(
            [sys.executable, "-m", "qnodeos", "serve", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    assert done.returncode == 2, done.stderr
    assert f"cannot listen on {place}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_file_is_named(folder):
    path = node_file(folder, limits={"connections": 0})
    done = subprocess.run(
        [sys.executable, "-m", "qnodeos", "serve", str(path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "node.yaml" in done.stderr
    assert "limits.connections" in done.stderr


def test_more_connections_than_descriptors_are_refused(folder):
    path = node_file(folder, limits={"connections": 9_000})
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 1000; exec "$0" -m qnodeos serve "$1"', sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "LimitNOFILE" in done.stderr
