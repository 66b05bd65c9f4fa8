"""The doctor's checks, on machines made up for them, and once on this one."""

from __future__ import annotations

import errno
import json
import os
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.service.doctor import Finding, Level, ThisSystem, check_machine, check_node, machine
from qnodeos.service.doctor.machine import CHECKS, parse_ranges, ranges
from qnodeos.transport import Address
from tests.service.certificates import Authority

NOW_S = 1_800_000_000.0


@dataclass
class FakeSystem:
    """A machine on which all is well; tests spoil it."""

    files: dict[str, str] = field(
        default_factory=lambda: {
            "/sys/kernel/realtime": "1",
            "/sys/devices/system/cpu/isolated": "2-3",
            "/sys/devices/system/cpu/nohz_full": "2-3",
            "/sys/devices/system/cpu/online": "0-3",
            "/proc/sys/kernel/sched_rt_runtime_us": "-1",
            "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
            "/dev/cpu_dma_latency": "",
        }
    )
    closed: set[str] = field(default_factory=set)
    sockets: set[str] = field(default_factory=set)
    release: str = "6.12.3-rt4"
    version: str = "#1 SMP PREEMPT_RT"
    options: dict[str, str] | None = field(default_factory=lambda: {"HZ": "250", "NO_HZ_FULL": "y"})
    python_version: tuple[int, int, int] = (3, 12, 1)
    packages: dict[str, str] = field(
        default_factory=lambda: dict.fromkeys((*machine.REQUIRED, *machine.OPTIONAL), "1.0")
    )
    usable: frozenset[int] = frozenset({0, 1, 2, 3})
    refusal: OSError | None = None
    limits: dict[int, int | None] = field(default_factory=dict)
    capabilities: frozenset[int] = frozenset({14, 23})
    resolution_ns: int = 1
    synchronised: bool | None = True
    native: bool | None = True
    listen_errors: dict[str, OSError] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)

    def text(self, path: str) -> str | None:
        return self.files.get(path)

    def names(self, folder: str) -> list[str]:
        start = folder.rstrip("/") + "/"
        inside = (path.removeprefix(start) for path in self.files if path.startswith(start))
        return sorted({name.split("/")[0] for name in inside})

    def may(self, path: str, mode: int) -> bool:
        present = path in self.files or any(name.startswith(path + "/") for name in self.files)
        return present and (mode == os.F_OK or path not in self.closed)

    def is_socket(self, path: str) -> bool:
        return path in self.sockets

    def kernel(self) -> tuple[str, str]:
        return self.release, self.version

    def kernel_options(self) -> dict[str, str] | None:
        return self.options

    def python(self) -> tuple[int, int, int]:
        return self.python_version

    def package(self, name: str) -> str | None:
        return self.packages.get(name)

    def cores(self) -> frozenset[int]:
        return self.usable

    def try_fifo(self, priority: int) -> OSError | None:
        return self.refusal

    def limit(self, number: int) -> int | None:
        return self.limits.get(number, 0)

    def capability(self, number: int) -> bool:
        return number in self.capabilities

    def clock_resolution_ns(self) -> int:
        return self.resolution_ns

    def is_clock_synchronised(self) -> bool | None:
        return self.synchronised

    def native_engine(self) -> bool | None:
        return self.native

    def listen_error(self, address: Address) -> OSError | None:
        return self.listen_errors.get(str(address))

    def running_node(self, address: Address) -> str | None:
        return self.nodes.get(str(address))


@pytest.fixture
def system() -> FakeSystem:
    return FakeSystem()


def one(findings: list[Finding], check: str) -> Finding:
    (found,) = (finding for finding in findings if finding.check == check)
    return found


# --- the machine ------------------------------------------------------------------------


def test_nothing_is_wrong_where_nothing_is(system):
    findings = check_machine(system)
    assert len(findings) == len(CHECKS)
    assert {finding.level for finding in findings} == {Level.OK}
    assert not any(finding.remedy for finding in findings)


EPERM = PermissionError(errno.EPERM, "Operation not permitted")
GOOD = FakeSystem().files


def without(name: str) -> dict[str, str]:
    return {path: text for path, text in GOOD.items() if not path.endswith(name)}


SPOILT = [
    ("python", {"python_version": (3, 10, 9)}, "problem", "3.10.9", "3.11"),
    ("packages", {"packages": {"qnodeos": "1"}}, "problem", "missing: netqasm", "pip install"),
    ("tick engine", {"native": False}, "warning", "fallback", "C compiler"),
    ("tick engine", {"native": None}, "problem", "cannot be imported", "install"),
    (
        "kernel",
        {"files": without("realtime"), "version": "#1 SMP PREEMPT_DYNAMIC"},
        "warning",
        "not PREEMPT_RT",
        "PREEMPT_RT kernel",
    ),
    ("timer interrupt", {"files": without("nohz_full")}, "warning", "250 Hz", "nohz_full="),
    ("timer interrupt", {"options": {"HZ": "1000"}}, "warning", "1000 Hz", "built with NO_HZ_FULL"),
    (
        "throttling",
        {
            "files": GOOD | {"/proc/sys/kernel/sched_rt_runtime_us": "950000"},
            "release": "6.1.0",
        },
        "warning",
        "950000 of 1000000 us",
        "sched_rt_runtime_us=-1",
    ),
    ("fair server", {"files": without("isolated")}, "warning", "50 ms", "isolate"),
    (
        "real-time priority",
        {"refusal": EPERM, "capabilities": frozenset()},
        "warning",
        "RLIMIT_RTPRIO is 0",
        "install-service",
    ),
    (
        "real-time priority",
        {
            "refusal": EPERM,
            "options": {"RT_GROUP_SCHED": "y"},
            "files": GOOD | {"/proc/self/cgroup": "5:memory:/m\n1:cpu,cpuacct:/user.slice\n0::/x"},
        },
        "warning",
        "control group /user.slice has no",
        "cpu.rt_runtime_us",
    ),
    ("real-time priority", {"refusal": EPERM}, "warning", "has the privilege", "sandbox"),
    (
        "control groups",
        {
            "options": {"RT_GROUP_SCHED": "y"},
            "files": GOOD | {"/proc/self/cgroup": "0::/user.slice"},
        },
        "warning",
        "(/user.slice)",
        "rt_group_sched=0",
    ),
    (
        "locked memory",
        {"limits": {8: 8 << 20}, "capabilities": frozenset()},
        "warning",
        "8192 KiB",
        "memlock",
    ),
    ("cores", {"usable": frozenset({0, 1})}, "warning", "2 usable (0-1)", "event-paced"),
    ("cores", {"usable": frozenset({7})}, "warning", "too few", "three cores"),
    ("isolated cores", {"files": without("isolated")}, "warning", "none", "isolcpus"),
    ("processor sleep", {"closed": {"/dev/cpu_dma_latency"}}, "warning", "deeply", "udev"),
    (
        "processor sleep",
        {"files": GOOD | {"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}},
        "warning",
        "powersave",
        "cpupower",
    ),
    (
        "spidev",
        {"files": GOOD | {"/dev/spidev0.1": ""}, "closed": {"/dev/spidev0.1"}},
        "warning",
        "/dev/spidev0.1",
        "udev",
    ),
    ("clock", {"resolution_ns": 4_000_000}, "problem", "4000000 ns", "high-resolution"),
    (
        "clock",
        {"files": {path: "hpet" if "clocksource" in path else t for path, t in GOOD.items()}},
        "warning",
        "hpet",
        "tsc",
    ),
    ("wall clock", {"synchronised": False}, "warning", "not synchronised", "chrony"),
    (
        "libadwin",
        {"files": GOOD | {"/etc/adwin/ADWINDIR": "/opt/adwin\n"}},
        "warning",
        "no /opt/adwin/lib/libadwin.so",
        "install",
    ),
]


@pytest.mark.parametrize(("check", "changes", "level", "found", "remedy"), SPOILT)
def test_what_is_wrong_is_found_and_can_be_mended(check, changes, level, found, remedy):
    finding = one(check_machine(FakeSystem(**changes)), check)
    assert finding.level == level
    assert found in finding.found
    assert remedy in finding.remedy


def test_every_check_that_can_fail_is_tested():
    names = {finding.check for finding in check_machine(FakeSystem())}
    assert names - {check for check, *_ in SPOILT} == {"optional packages"}


@pytest.mark.parametrize(
    ("check", "changes", "found"),
    [
        ("timer interrupt", {"options": None}, "does not show its configuration"),
        ("control groups", {"options": None}, "does not show its configuration"),
        (
            "control groups",
            {"options": {"RT_GROUP_SCHED": "y", "RT_GROUP_SCHED_DEFAULT_DISABLED": "y"}},
            "switched off",
        ),
        ("throttling", {"files": without("sched_rt_runtime_us")}, "unknown"),
        (
            "throttling",
            {"files": GOOD | {"/proc/sys/kernel/sched_rt_runtime_us": "950000"}},
            "fair server instead",
        ),
        ("fair server", {"release": "6.1.0-13-amd64"}, "has none"),
        (
            "fair server",
            {
                "files": without("isolated")
                | {f"/sys/kernel/debug/sched/fair_server/cpu{n}/runtime": "0" for n in (0, 1)}
            },
            "off on every core",
        ),
        ("processor sleep", {"files": without("cpu_dma_latency")}, "there is no"),
        ("wall clock", {"synchronised": None}, "unknown"),
        ("wall clock", {"files": GOOD | {"/dev/ptp0": ""}}, "hardware clocks: ptp0"),
        ("spidev", {"files": GOOD | {"/dev/spidev1.0": ""}}, "/dev/spidev1.0"),
        (
            "libadwin",
            {"files": GOOD | {"/etc/adwin/ADWINDIR": "/a\n", "/a/lib/libadwin.so": ""}},
            "/a/lib/libadwin.so",
        ),
    ],
)
def test_what_is_as_good_as_can_be_known(check, changes, found):
    finding = one(check_machine(FakeSystem(**changes)), check)
    assert finding.level is Level.OK
    assert found in finding.found


def test_ranges():
    assert ranges(frozenset({0, 1, 2, 5, 7, 8})) == "0-2,5,7-8"
    assert parse_ranges("0-2,5,7-8") == {0, 1, 2, 5, 7, 8}
    assert parse_ranges("") == parse_ranges("none") == frozenset()


# --- a node file ------------------------------------------------------------------------

API = "api: {listen: ['unix:/run/qnodeos/api.sock', 'tcp:127.0.0.1:7001']}\n"


def examine(system: FakeSystem, tmp_path: Path, device: str, rest: str = API) -> list[Finding]:
    path = tmp_path / "client.yaml"
    path.write_text(f"name: client\nnode_id: 0\ndevice: {device}\n{rest}", "utf-8")
    return check_node(path, system, NOW_S)


@pytest.fixture
def prepared() -> FakeSystem:
    return FakeSystem(files=GOOD | {"/run/qnodeos/client.channel": "", "/dev/spidev0.0": ""})


@pytest.mark.parametrize(
    "device",
    ["{link: loopback}", "{link: spidev}", "{link: shm, path: /run/qnodeos/client.channel}"],
)
def test_a_node_that_can_start(prepared, tmp_path, device):
    rest = API + "realtime: {mode: spinning, tick_core: 2, policy_core: 3}\n"
    findings = examine(prepared, tmp_path, device, rest)
    assert {finding.level for finding in findings} == {Level.OK}
    checks = ["node file", "device", "mode", "tick_core", "api.listen[0]", "api.listen[1]"]
    assert [finding.check for finding in findings] == checks


def test_a_wrong_file_is_the_only_finding(system, tmp_path):
    (finding,) = examine(system, tmp_path, "{link: carrier pigeon}")
    assert finding.level is Level.PROBLEM
    assert "client.yaml:3" in finding.found


@pytest.mark.parametrize(
    ("device", "closed", "level", "found"),
    [
        ("{link: spidev, bus: 7}", "", "problem", "there is no /dev/spidev7.0"),
        ("{link: spidev}", "/dev/spidev0.0", "problem", "may not be used"),
        ("{link: shm, path: /run/qnodeos/x}", "", "warning", "there is no /run/qnodeos/x yet"),
        ("{link: shm, path: /run/qnodeos/x}", "/run/qnodeos", "problem", "may not look into"),
        (
            "{link: shm, path: /run/qnodeos/client.channel}",
            "/run/qnodeos/client.channel",
            "problem",
            "may not be used",
        ),
    ],
)
def test_devices_that_cannot_be_opened(prepared, tmp_path, device, closed, level, found):
    prepared.closed = {closed}
    finding = one(examine(prepared, tmp_path, device), "device")
    assert finding.level == level
    assert found in finding.found
    assert finding.remedy


@pytest.mark.parametrize(
    ("realtime", "changes", "check", "level", "found"),
    [
        ("mode: spinning", {"native": False}, "mode", "problem", "C extension"),
        ("mode: spinning", {"usable": frozenset({0})}, "mode", "problem", "never run"),
        ("tick_core: 9", {}, "tick_core", "problem", "no core 9"),
        ("tick_core: 2, policy_core: 9", {}, "policy_core", "problem", "no core 9"),
        ("policy_core: 3", {}, "policy_core", "warning", "is not used"),
        ("tick_core: 2, policy_core: 2", {}, "tick_core", "problem", "policy thread, too"),
        ("tick_core: 1", {}, "tick_core", "warning", "not isolated"),
    ],
)
def test_wishes_that_cannot_be_had(tmp_path, realtime, changes, check, level, found):
    findings = examine(
        FakeSystem(**changes), tmp_path, "{link: loopback}", f"{API}realtime: {{{realtime}}}\n"
    )
    finding = one(findings, check)
    assert finding.level == level
    assert found in finding.found
    assert finding.remedy


@pytest.mark.parametrize(
    ("changes", "check", "level", "found"),
    [
        ({"files": {}}, "api.listen[0]", "warning", "there is no /run/qnodeos"),
        ({"closed": {"/run/qnodeos"}}, "api.listen[0]", "problem", "may not make a socket"),
        (
            {"files": {"/run/qnodeos/api.sock": "x"}},
            "api.listen[0]",
            "problem",
            "is not a socket",
        ),
        (
            {"nodes": {"unix:/run/qnodeos/api.sock": "server"}},
            "api.listen[0]",
            "problem",
            "QNPU of node server answers",
        ),
        (
            {"listen_errors": {"tcp:127.0.0.1:7001": OSError(98, "Address already in use")}},
            "api.listen[1]",
            "problem",
            "already in use",
        ),
        (
            {"listen_errors": {"tcp:0.0.0.0:7101": OSError(98, "Address already in use")}},
            "peer.listen",
            "problem",
            "already in use",
        ),
    ],
)
def test_addresses_that_are_taken(prepared, tmp_path, changes, check, level, found):
    for name, value in changes.items():
        setattr(prepared, name, value)
    rest = API + (
        "peer: {listen: 'tcp:0.0.0.0:7101'}\n"
        "tls: {certificate: none.pem, key: none.pem, authority: none.pem}\n"
    )
    finding = one(examine(prepared, tmp_path, "{link: loopback}", rest), check)
    assert finding.level == level
    assert found in finding.found
    assert finding.remedy


def test_the_addresses_of_a_running_service_are_its_own(prepared, tmp_path):
    prepared.nodes = {"unix:/run/qnodeos/api.sock": "client"}
    prepared.listen_errors = {"tcp:127.0.0.1:7001": OSError(98, "Address already in use")}
    findings = examine(prepared, tmp_path, "{link: loopback}")
    assert {finding.level for finding in findings} == {Level.OK}


# --- certificates -----------------------------------------------------------------------


def certificate_finding(tmp_path: Path, names: tuple[str, ...] = ("client",), **how) -> Finding:
    authority = Authority()
    if how.pop("foreign", False):
        how["trusts"] = Authority()
    days = how.pop("days", 90)
    now = datetime.now(UTC)
    authority.issue(tmp_path / "tls", *names, not_after=now + timedelta(days), **how)
    path = tmp_path / "client.yaml"
    path.write_text(
        f"name: client\nnode_id: 0\ndevice: {{link: loopback}}\n{API}"
        "tls: {certificate: tls/certificate.pem, key: tls/key.pem, authority: tls/authority.pem}\n"
    )
    return one(check_node(path, FakeSystem(), now.timestamp()), "certificates")


def test_good_certificates(tmp_path):
    finding = certificate_finding(tmp_path)
    assert finding.level is Level.OK
    assert finding.found.startswith("of client, valid for ")


@pytest.mark.parametrize(
    ("names", "how", "level", "found"),
    [
        (("client",), {"days": 10}, "warning", "more days"),
        (("client",), {"days": -1}, "problem", "expired"),
        (("server",), {}, "problem", "client"),
        (("client",), {"foreign": True}, "problem", "verify failed"),
    ],
)
def test_certificates_that_will_be_refused(tmp_path, names, how, level, found):
    finding = certificate_finding(tmp_path, names, **how)
    assert finding.level == level
    assert found in finding.found
    assert "docs/deployment.md" in finding.remedy


def test_missing_certificates(prepared, tmp_path):
    rest = API + "tls: {certificate: none.pem, key: none.pem, authority: none.pem}\n"
    finding = one(examine(prepared, tmp_path, "{link: loopback}", rest), "certificates")
    assert finding.level is Level.PROBLEM
    assert "none.pem" in finding.found


# --- this machine -----------------------------------------------------------------------


def test_the_command_runs_here(tmp_path, mocker):
    mocker.patch("qnodeos.service.doctor.system._ANSWER_S", 0.05)  # nobody will answer
    path = tmp_path / "client.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path.write_text(
            "name: client\nnode_id: 0\ndevice: {link: loopback}\n"
            f"api: {{listen: ['unix:api.sock', 'tcp:127.0.0.1:{port}']}}\n"
        )
        report = tmp_path / "report.json"
        done = CliRunner().invoke(cli.app, ["doctor", str(path), "--json", str(report)])
    assert done.exit_code == 1, done.output
    assert f"problem  api.listen[1]: tcp:127.0.0.1:{port}" in done.output
    written = json.loads(report.read_text())
    assert len(written["findings"]) > len(CHECKS)
    assert sum(written["counts"].values()) == len(written["findings"])
    assert written["counts"]["problem"] >= 1
    for finding in written["findings"]:
        assert finding["remedy"] or finding["level"] == "ok"


def test_warnings_are_no_failure(mocker):
    mocker.patch("qnodeos.service.doctor.ThisSystem", return_value=FakeSystem(synchronised=False))
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "warning  wall clock" in done.output
    assert "to mend: run chrony" in done.output


def test_this_system_answers_without_raising(tmp_path):
    system = ThisSystem()
    assert system.text(str(tmp_path)) is None
    assert system.names(str(tmp_path / "none")) == []
    assert not system.is_socket(str(tmp_path / "none"))
    assert system.package("no-such-distribution") is None
    assert system.running_node(Address.parse(f"unix:{tmp_path}/none")) is None
    before = os.sched_getscheduler(0)
    system.try_fifo(1)
    assert os.sched_getscheduler(0) == before
    assert system.listen_error(Address.parse("tcp:127.0.0.1:0")) is None
    assert system.clock_resolution_ns() > 0
    assert system.is_clock_synchronised() in {True, False, None}
