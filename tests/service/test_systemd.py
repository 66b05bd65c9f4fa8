"""The units under a real systemd: priority, readiness, activated sockets, watchdog."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.service.node_file import load_node
from qnodeos.service.unit_files import Installation, render_units, unit_names
from qnodeos.transport import Address
from tests.service.systemd_namespace import DATA, DEADLINE_S, machine, reason_against

REASON = reason_against()

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

SERVICE, SOCKET, METRICS = unit_names("client")

TARGET = f"""\
[Unit]
Description=all of this machine
DefaultDependencies=no
Requires={SOCKET}
"""
# What units of a whole system hang on, and a machine without one need not have.
EMPTY_TARGET = "[Unit]\nDescription=empty\nDefaultDependencies=no\n"
TARGETS = ("sysinit", "basic", "sockets", "network-online", "time-sync", "shutdown", "system")


def account() -> str:
    """An unprivileged user with a group of the same name."""
    groups = {group.gr_name for group in grp.getgrall()}
    for user in pwd.getpwall():
        if user.pw_uid != 0 and user.pw_name in groups:
            return user.pw_name
    pytest.skip("there is no unprivileged user with a group of the same name")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def share(tmp_path):
    """The folder a machine shares with us: node file, program and units."""
    folder = tmp_path / "share"
    units = folder / "units"
    units.mkdir(parents=True)
    for parent in (folder, units):
        parent.chmod(0o755)
    (folder / "client.yaml").write_text(
        "name: client\nnode_id: 0\ndevice: {link: loopback}\n"
        f"api: {{listen: ['unix:/run/share/api.sock', 'tcp:127.0.0.1:{free_port()}']}}\n"
        f"realtime: {{mode: event-paced, policy_core: {min(os.sched_getaffinity(0))}}}\n"
    )
    (folder / "client.yaml").chmod(0o644)
    for name in TARGETS:
        (units / f"{name}.target").write_text(EMPTY_TARGET)
    (units / "default.target").write_text(TARGET)
    return folder


def install(share: Path, command: Path) -> None:
    """Write the real units, for a command."""
    installation = Installation(
        node_file=Path("/run/share/client.yaml"),
        command=command,
        account=account(),
        metrics=Address(host="127.0.0.1", port=free_port()),
    )
    units = render_units(load_node(share / "client.yaml"), installation)
    for name, text in units.items():
        (share / "units" / name).write_text(text)
    settings = {SERVICE: ["StandardError=append:/run/share/errors"], METRICS: []}
    for unit, lines in settings.items():
        if is_in_tmp(Path(sys.executable)):
            lines.append("PrivateTmp=no")
        own = share / "units" / f"{unit}.d"
        own.mkdir()
        (own / "test.conf").write_text("\n".join(["[Service]", *lines]) + "\n")


def is_in_tmp(path: Path) -> bool:
    """Whether a unit's program would not see it, which has a /tmp of its own."""
    return any(path.is_relative_to(folder) for folder in ("/tmp", "/var/tmp"))


def qnodeos_command(share: Path) -> Path:
    """The command `qnodeos`; from /tmp, where units refuse it, by way of the share."""
    command = Path(sys.executable).with_name("qnodeos")
    if not is_in_tmp(command):
        return command
    script = share / "program"
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o755)
    return Path("/run/share/program")


def ask(place: str | tuple[str, int], order: str) -> dict[str, Any]:
    """Send an order to the program; what it says of itself."""
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(DEADLINE_S)
        connection.connect(place)
        connection.sendall(order.encode())
        received = b""
        while data := connection.recv(65536):
            received += data
    answer: dict[str, Any] = json.loads(received)
    return answer


def scrape(place: tuple[str, int]) -> str:
    """What the metrics unit answers."""
    with socket.create_connection(place, DEADLINE_S) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
    return received.decode()


def test_a_supervised_program(share):
    """Priority, core, READY, both activated sockets, and the end of one that hangs."""
    program = share / "program"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} /run/share/service_program.py "$@"\n')
    program.chmod(0o755)
    shutil.copy(DATA / "service_program.py", share)
    (share / "service_program.py").chmod(0o644)
    install(share, Path("/run/share/program"))
    path = str(share / "api.sock")
    with machine(share) as running:
        running.wait_for(SOCKET, ActiveState="active", SubState="listening")
        assert running.show(SERVICE)["ActiveState"] == "inactive"
        facts = ask(path, "facts")  # nothing runs yet: this starts it
        assert facts["arguments"] == ["serve", "/run/share/client.yaml"]
        assert facts["uid"] == pwd.getpwnam(account()).pw_uid
        assert facts["names"] == ["api", "api"]
        assert facts["watchdog_ns"] == 500_000_000
        steps = {step["name"]: step for step in facts["realtime"]["steps"]}
        assert facts["is_fifo"], steps
        assert facts["priority"] == 50
        assert facts["affinity"] == [facts["core"]]
        for name in ("locked memory", "priority of the policy thread", "timer slack"):
            assert steps[name]["state"] == "granted", steps[name]
        # Active it is only after READY=1.
        running.wait_for(SERVICE, ActiveState="active", StatusText="serving", NRestarts="0")

        running.wait_for_signs_of_life(SERVICE)

        (address,) = re.findall(r"tcp:([\d.]+):(\d+)", (share / "client.yaml").read_text())
        place = (address[0], int(address[1]))
        assert ask(place, "facts")["pid"] == facts["pid"]

        assert ask(path, "hang")["pid"] == facts["pid"]
        running.wait_for(SERVICE, ActiveState="active", StatusText="serving", NRestarts="1")
        assert ask(place, "facts")["pid"] != facts["pid"]
        # SIGABRT left the place of the hang, which SIGKILL would not.
        said = (share / "errors").read_text()
        assert "Fatal Python error: Aborted" in said
        assert "service_program.py" in said


def test_the_service_itself(share):
    """`qnodeos serve` in its sandbox, over systemd's sockets, restarted; with metrics."""
    install(share, qnodeos_command(share))
    with machine(share) as running:
        running.wait_for(SOCKET, ActiveState="active", SubState="listening")
        node = load_node(share / "client.yaml")
        (address,) = (address for address in node.api.listen if not address.is_unix)
        with QnpuClient.connect(address, timeout_s=DEADLINE_S) as client:  # this starts it
            assert client.welcome.node_name == "client"
            groups = client.statistics(DEADLINE_S)
        steps = {step["name"]: step for step in groups["realtime"]["steps"]}
        for name in (
            "locked memory",
            "core of the policy thread",
            "priority of the policy thread",
            "timer slack",
        ):
            assert steps[name]["state"] == "granted", steps[name]
        running.wait_for(SERVICE, ActiveState="active", NRestarts="0")
        assert "device attached" in running.show(SERVICE)["StatusText"]
        running.wait_for_signs_of_life(SERVICE)

        running.systemctl("start", METRICS)
        running.wait_for(METRICS, ActiveState="active")  # active after READY=1
        (place,) = re.findall(r"metrics at tcp:([\d.]+):(\d+)", running.show(METRICS)["StatusText"])
        assert 'qnodeos_up{node="client"} 1.0' in scrape((place[0], int(place[1])))

        # The loop hangs: the process is stopped, as a debugger or a stuck driver would.
        running.systemctl("kill", "--signal=SIGSTOP", SERVICE)
        running.wait_for(SERVICE, ActiveState="active", NRestarts="1")
        with QnpuClient.connect(Address(path=str(share / "api.sock"))) as client:
            again = client.statistics(DEADLINE_S)
        assert again["service"]["incarnation"] > groups["service"]["incarnation"]

        running.systemctl("stop", SERVICE)
        shown = running.show(SERVICE)
        assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success")
