"""`qnodeos ps`, `top` and `metrics`: what they make of what a QNPU tells."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.api.host_wire import GetStatistics, ListProcesses, ProcessInfo, ProcessList, Statistics
from qnodeos.cli.views import overview, process_table, rate
from qnodeos.errors import ConfigurationError, QnpuUnavailableError
from qnodeos.service.metrics import COUNTERS, GAUGES, MetricsServer, QnpuCollector, metrics_of
from qnodeos.service.node_file import NodeFile, load_node
from qnodeos.service.operator import Operator, Snapshot, connect_operator
from qnodeos.service.realtime import RealtimeReport, Step, StepState
from qnodeos.transport import Address, TlsFiles
from tests.service.certificates import Authority
from tests.service.fake_qnpu import FakeQnpu
from tests.service.service_bench import Bench

DEADLINE_S = 60.0

PROCESSES = (
    ProcessInfo(0, -1, -1, "idle", 1000, 0, None, (), 0),
    ProcessInfo(7, 3, 2, "running", 5, 4, 12, (0, 1), 2, "dqc"),
)
GROUPS: dict[str, dict[str, Any]] = {
    "service": {
        "node": "client",
        "version": "1.2.3",
        "pid": 77,
        "uptime_ns": 3_725_000_000_000,
        "device": "device attached",
        "scheduler": "bin-aware",
        "requests": 100,
        "connections": 2,
    },
    "realtime": RealtimeReport(
        (
            Step("locked memory", StepState.GRANTED),
            Step("timer slack", StepState.REFUSED, "no", "yes"),
            Step("core of the policy thread", StepState.NOT_ASKED),
        )
    ).as_dict(),
    "engine": {
        "mode": "spinning",
        "link": "shm",
        "is_native": True,
        "ticks": 990_000,
        "skipped": 10_000,
        "given_up": 3,
        "lateness_ns": {"p50": 50, "p99": 12_000, "p999": 15_000, "max": 131_000, "total": 9},
        "reaction_ticks": {"p50": 2, "p99": 2, "p999": 3, "max": 4, "total": 9},
    },
    "kernel": {
        "subroutines_done": 40,
        "subroutines_failed": 1,
        "physical_instructions": 500,
        "pairs": {1: 20},
        "link_requests": {1: 2},
        "bins_used": 30,
        "bins_missed": 4,
        "bins_blocked": 2,
        "free_qubits": 1,
    },
    "peers": {
        "dropped": 0,
        "neighbours": {
            "server": {"node_id": 1, "connected": True, "lost": 2, "last_error": ""},
            "far": {"node_id": 2, "connected": False, "lost": 0, "last_error": "no route"},
        },
    },
}
SNAPSHOT = Snapshot(100.0, "client", GROUPS, PROCESSES)


def answer(client: int, message: Any) -> list[Any] | None:
    """What a QNPU with these processes answers."""
    if isinstance(message, ListProcesses):
        return [ProcessList(message.request, PROCESSES)]
    if isinstance(message, GetStatistics):
        return [Statistics(message.request, GROUPS)]
    return None


@pytest.fixture
def qnpu() -> Iterator[FakeQnpu]:
    with FakeQnpu(name="client", before=answer) as fake:
        yield fake


def node_file(folder: Path, *addresses: object) -> Path:
    path = folder / "client.yaml"
    listen = ", ".join(f"'{address}'" for address in addresses)
    path.write_text(
        f"name: client\nnode_id: 0\ndevice: {{link: loopback}}\napi: {{listen: [{listen}]}}\n"
    )
    return path


def node(folder: Path, *addresses: object) -> NodeFile:
    return load_node(node_file(folder, *addresses))


def shown(renderable: Any) -> str:
    console = Console(width=200, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


# --- asking -----------------------------------------------------------------------------


def test_the_first_address_that_answers_is_used(qnpu, tmp_path):
    with connect_operator(node(tmp_path, "unix:none.sock", qnpu.address), "test") as client:
        assert client.welcome.node_name == "client"


def test_nobody_answers(tmp_path):
    with pytest.raises(QnpuUnavailableError, match=r"none\.sock"):
        connect_operator(node(tmp_path, "tcp:127.0.0.1:1", "unix:none.sock"), "test")


def test_a_qnpu_that_was_gone_is_asked_anew(tmp_path):
    with FakeQnpu(name="client", before=answer) as first:
        where = node(tmp_path, "unix:none.sock", first.address)
        with Operator(where, "test") as operator:
            assert operator.ask().processes == PROCESSES
            first.stop()
            with pytest.raises(QnpuUnavailableError):
                operator.ask()
            with FakeQnpu(name="client", before=answer) as second:
                operator._node = node(tmp_path, second.address)
                assert operator.ask().groups["kernel"]["bins_used"] == 30


# --- tables -----------------------------------------------------------------------------


def test_processes():
    lines = shown(process_table(PROCESSES)).splitlines()
    assert lines[3].split() == ["0", "kernel", "network", "idle", "1000", "0", "0"]
    assert lines[4].split() == ["7", "3", "dqc", "2", "running", "5", "4", "12", "0,1", "2"]


def test_the_name_of_a_client_cannot_disturb_the_terminal():
    hostile = structs.replace(PROCESSES[1], client_name="\x1b[2J[red]\n\u202eabcdefghij")
    text = shown(process_table([hostile]))
    assert "3 ?[2J[red]??a " in text


def test_processes_fit_a_terminal_of_80_columns():
    console = Console(width=80)
    long = ProcessInfo(8, 4, 0, "waiting", 1000, 12, 100_000, (0,), 64, "qnodeos run server " * 2)
    with console.capture() as capture:
        console.print(process_table((*PROCESSES, long)))
    text = capture.get()
    assert "…" not in text
    for whole in ("network", "waiting", "running", "queued", "wants", "100000"):
        assert whole in text


def test_everything_at_a_glance():
    text = shown(overview(SNAPSHOT, None))
    for line in (
        "client, qnodeos 1.2.3, process 77, up 1:02:05",
        "bin-aware",
        "runs without: timer slack",
        "spinning over shm, native, 990000 exchanged, 10000 skipped (1 %)",
        "p50/p99/p99.9/max 0.05/12/15/131 us, reaction p50/p99 2/2 ticks",
        "3 instructions given up",
        "40 done, 1 failed, 4 queued; physical instructions 500; 1 qubits free",
        "bins used 30, missed 4, blocked 2; node 1: 20 pairs, 2 requests wait",
        "2 connected, ? requests open, 100 taken",
        "peer server",
        "not connected (no route)",
    ):
        assert line in text


def test_a_repeater_shows_its_swaps():
    groups = {**GROUPS, "kernel": GROUPS["kernel"] | {"swaps": 7, "circuits": 2}}
    text = shown(overview(replace(SNAPSHOT, groups=groups), None))
    assert "2 requests wait; swaps 7, 2 circuits under way" in text


def test_rates():
    later_groups = {**GROUPS, "kernel": GROUPS["kernel"] | {"subroutines_done": 60}}
    later = replace(SNAPSHOT, time_s=104.0, groups=later_groups)
    assert rate(later, SNAPSHOT, "kernel", "subroutines_done") == 5
    assert "60 (5/s) done" in shown(overview(later, SNAPSHOT))
    assert rate(SNAPSHOT, SNAPSHOT, "kernel", "subroutines_done") is None
    assert rate(SNAPSHOT, None, "kernel", "subroutines_done") is None
    assert rate(later, SNAPSHOT, "kernel", "none") is None


def test_no_rate_across_a_restart():
    restarted = replace(SNAPSHOT, time_s=101.0, groups={"kernel": {"subroutines_done": 3}})
    assert rate(restarted, SNAPSHOT, "kernel", "subroutines_done") is None


def test_a_qnpu_without_a_device():
    groups = {"service": {"device": "no device: start the lab"}, "realtime": {}}
    text = shown(overview(Snapshot(0.0, "client", groups, ()), None))
    assert "no device: start the lab" in text
    assert "bins" not in text


# --- commands ---------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, arguments)


def test_ps(qnpu, tmp_path):
    report = tmp_path / "reports" / "ps.json"
    path = node_file(tmp_path, qnpu.address)
    done = run("ps", "--node", str(path), "--json", str(report))
    assert done.exit_code == 0, done.output
    assert "network" in done.output
    written = json.loads(report.read_text())
    assert written["node"] == "client"
    assert written["processes"][1] == {
        "pid": 7,
        "client": 3,
        "app_id": 2,
        "state": "running",
        "priority": 5,
        "pending": 4,
        "current": 12,
        "qubits": [0, 1],
        "requests": 2,
        "client_name": "dqc",
    }


def test_top_once(qnpu, tmp_path):
    done = run("top", "--node", str(node_file(tmp_path, qnpu.address)), "--once")
    assert done.exit_code == 0, done.output
    assert "bins used 30" in done.output


@pytest.mark.parametrize("command", [["ps"], ["top", "--once"]])
def test_without_a_qnpu_the_commands_fail(tmp_path, command):
    done = run(*command, "--node", str(node_file(tmp_path, "unix:none.sock")))
    assert done.exit_code == 1
    assert isinstance(done.exception, QnpuUnavailableError)


def test_top_goes_on_while_the_qnpu_is_away_and_ends_with_ctrl_c(qnpu, tmp_path, mocker):
    looks = iter([lambda _: qnpu.stop(), lambda _: None])

    def sleep(seconds: float) -> None:
        act = next(looks, None)
        if act is None:
            raise KeyboardInterrupt
        act(seconds)

    mocker.patch("qnodeos.cli.ps.time.sleep", sleep)
    done = run("top", "--node", str(node_file(tmp_path, qnpu.address)))
    assert done.exit_code == 0, done.output
    assert next(looks, None) is None


# --- metrics ----------------------------------------------------------------------------


def samples(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """Values by name and labels but for the node's."""
    return {
        (sample.name, *(v for k, v in sorted(sample.labels.items()) if k != "node")): sample.value
        for family in metrics_of(snapshot)
        for sample in family.samples
    }


def test_metrics_of_a_snapshot():
    values = samples(SNAPSHOT)
    for key, value in {
        ("qnodeos_engine_ticks_total",): 990_000,
        ("qnodeos_engine_skipped_total",): 10_000,
        ("qnodeos_engine_lateness_seconds", "0.99"): pytest.approx(12e-6),
        ("qnodeos_engine_reaction_ticks", "0.5"): 2,
        ("qnodeos_engine_is_native",): 1,
        ("qnodeos_kernel_pairs_total", "1"): 20,
        ("qnodeos_kernel_link_requests", "1"): 2,
        ("qnodeos_realtime_granted", "locked memory"): 1,
        ("qnodeos_realtime_granted", "timer slack"): 0,
        ("qnodeos_peer_connected", "server"): 1,
        ("qnodeos_peer_connected", "far"): 0,
        ("qnodeos_peer_events_total", "lost", "server"): 2,
        ("qnodeos_service_uptime_seconds",): 3725,
        ("qnodeos_qnpu_info", "spinning", "bin-aware", "1.2.3"): 1,
    }.items():
        assert values[key] == value, key
    assert ("qnodeos_realtime_granted", "core of the policy thread") not in values
    assert all(
        sample.labels["node"] == "client"
        for family in metrics_of(SNAPSHOT)
        for sample in family.samples
    )


def test_everything_a_service_counts_is_a_metric(tmp_path):
    """A counter that is new at the service needs a description here."""
    other = {
        "service": {"node_id", "pid", "incarnation", "uptime_ns"},
        "engine": {"tick_ns", "priority"},
        "kernel": set(),
    }
    with closing(Bench(tmp_path)) as bench:
        groups = bench.service.statistics()
    for group, without_metric in other.items():
        numbers = {name for name, value in groups[group].items() if isinstance(value, int)}
        described = {*COUNTERS.get(group, ()), *GAUGES.get(group, ())}
        assert numbers - described - without_metric == set(), f"group {group}"
        assert described <= numbers, f"group {group} has lost some"


@contextmanager
def serving(server: MetricsServer) -> Iterator[MetricsServer]:
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    with server:
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)


def get(port: int, tls: TlsFiles | None = None) -> str:
    """What a scraper gets."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
        wrapped: socket.socket = connection
        if tls is not None:
            wrapped = tls.client_context().wrap_socket(connection, server_hostname="client")
        with wrapped:
            wrapped.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            received = b""
            while data := wrapped.recv(65536):
                received += data
    return received.decode()


def body(response: str) -> dict[str, float]:
    """Values of a response by name."""
    head, _, text = response.partition("\r\n\r\n")
    assert "200 OK" in head, response
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def metrics_server(
    where: NodeFile, address: str = "tcp:127.0.0.1:0", tls: TlsFiles | None = None
) -> tuple[MetricsServer, Operator]:
    operator = Operator(where, "metrics")
    return MetricsServer(Address.parse(address), tls, [QnpuCollector(operator, "client")]), operator


def test_a_scrape(qnpu, tmp_path):
    server, operator = metrics_server(node(tmp_path, qnpu.address))
    with operator, serving(server):
        values = body(get(server.server_port))
        assert values["qnodeos_up"] == 1
        assert values["qnodeos_kernel_bins_used_total"] == 30
        qnpu.stop()
        assert body(get(server.server_port)) == {"qnodeos_up": 0}


def test_one_silent_scraper_does_not_stop_the_others(qnpu, tmp_path, mocker):
    mocker.patch("qnodeos.service.metrics._Handler.timeout", 0.05)
    server, operator = metrics_server(node(tmp_path, qnpu.address))
    with (
        operator,
        serving(server),
        socket.create_connection(("127.0.0.1", server.server_port)) as silent,
    ):
        assert body(get(server.server_port))["qnodeos_up"] == 1
        silent.settimeout(DEADLINE_S)
        assert silent.recv(1) == b""


@pytest.mark.parametrize(
    "garbage", [b"", b"\n", bytes(100), b"\xff" * 100_000, b"\x16\x03\x01\x02", b"GET " * 20_000]
)
def test_garbage_does_not_stop_the_scrapers(qnpu, tmp_path, garbage, capfd):
    server, operator = metrics_server(node(tmp_path, qnpu.address))
    with operator, serving(server):
        with (
            suppress(ConnectionError),  # it may hang up before it has read everything
            socket.create_connection(("127.0.0.1", server.server_port)) as stranger,
        ):
            stranger.settimeout(DEADLINE_S)
            stranger.sendall(garbage)
            with suppress(OSError):  # not connected: it has hung up
                stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4_096):
                pass
        assert body(get(server.server_port))["qnodeos_up"] == 1
    assert "Traceback" not in "".join(capfd.readouterr())


def test_beyond_the_machine_only_with_certificates(qnpu, tmp_path):
    where = node(tmp_path, qnpu.address)
    with pytest.raises(ConfigurationError, match="no TLS is configured"):
        metrics_server(where, "tcp:0.0.0.0:0")
    authority = Authority()
    ours = authority.issue(tmp_path / "ours", "client")
    theirs = authority.issue(tmp_path / "theirs", "prometheus")
    foreign = Authority().issue(tmp_path / "foreign", "prometheus", trusts=authority)
    server, operator = metrics_server(where, "tcp:0.0.0.0:0", ours)
    with operator, serving(server):
        assert body(get(server.server_port, theirs))["qnodeos_up"] == 1
        # Refused with an alert, or the connection is gone before that arrives.
        with suppress(OSError):
            assert get(server.server_port, foreign) == ""
        assert body(get(server.server_port, theirs))["qnodeos_up"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_before_the_qnpu_does_and_ends_cleanly(tmp_path, number):
    path = node_file(tmp_path, "unix:none.sock")
    command = [sys.executable, "-m", "qnodeos", "metrics", "--node", str(path)]
    process = subprocess.Popen(
        [*command, "--listen", "tcp:127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            _, _, port = said.rpartition(":")
            assert body(get(int(port))) == {"qnodeos_up": 0}
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()


def test_metrics_need_a_port(qnpu, tmp_path):
    with pytest.raises(ConfigurationError, match="over TCP"):
        metrics_server(node(tmp_path, qnpu.address), f"unix:{tmp_path}/metrics.sock")
