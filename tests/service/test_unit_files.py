"""The systemd units that `install-service` writes, judged by systemd's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.errors import CallerError, ConfigurationError
from qnodeos.service.node_file import NodeFile, load_node
from qnodeos.service.unit_files import (
    CONTROLLER_UNIT,
    MARK,
    Installation,
    closed_folders,
    render_units,
    unit_names,
    write_units,
)
from qnodeos.transport import Address

MAX_EXPOSURE = 2.5

SPI = "{link: spidev}"
SHM = "{link: shm, path: /run/qnodeos/client.channel}"
LOCAL = "api: {listen: ['unix:/run/qnodeos/client-api.sock', 'tcp:127.0.0.1:7001']}\n"
REMOTE = """\
api: {listen: ["unix:/run/qnodeos/api.sock", "tcp:[::1]:7001", "tcp:192.0.2.1:7002"]}
peer: {listen: "tcp:192.0.2.1:7101"}
tls: {certificate: c.pem, key: k.pem, authority: a.pem}
"""

COMMAND = Path("/usr/bin/env")
"""Any program that is there and not in /tmp, where these tests may be."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on this machine"
)


def node(tmp_path: Path, device: str = SPI, rest: str = LOCAL) -> NodeFile:
    path = tmp_path / "client.yaml"
    path.write_text(f"name: client\nnode_id: 0\ndevice: {device}\n{rest}", "utf-8")
    return load_node(path)


def installation(**changes) -> Installation:
    values = {
        "node_file": Path("/etc/qnodeos/client.yaml"),
        "command": COMMAND,
        "interpreter": Path("/usr/bin/python3"),
    }
    return Installation(**(values | changes))


def section(text: str, name: str) -> dict[str, list[str]]:
    """The settings of a section of a unit."""
    (body,) = re.findall(rf"^\[{name}\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S)
    settings: dict[str, list[str]] = {}
    for line in body.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def service(tmp_path: Path, device: str = SPI, rest: str = LOCAL, **changes):
    units = render_units(node(tmp_path, device, rest), installation(**changes))
    return section(units[unit_names("client")[0]], "Service")


# --- what systemd says ------------------------------------------------------------------

VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "spidev": (SPI, LOCAL, {}),
    "shm": (SHM, LOCAL, {}),
    "other machines": (SPI, REMOTE, {}),
    "metrics": (SPI, LOCAL, {"metrics": Address.parse("tcp:127.0.0.1:9464")}),
    "controller": (SPI, REMOTE, {"controller": Path("/etc/qnodeos/controller.yaml")}),
    "blanks": (SHM, LOCAL, {"node_file": Path("/etc/my nodes/100 %.yaml")}),
    "user": (SHM, LOCAL, {"is_user": True, "metrics": Address.parse("tcp:127.0.0.1:9464")}),
}


@pytest.fixture(params=list(VARIANTS))
def written(request, tmp_path, monkeypatch):
    # Where a user's manager would keep its state; `verify --user` will not do without.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    device, rest, changes = VARIANTS[request.param]
    units = render_units(node(tmp_path, device, rest), installation(**changes))
    folder = tmp_path / "units"
    folder.mkdir()
    return list(write_units(units, folder)), installation(**changes)


def manager(how: Installation) -> str:
    return "--user" if how.is_user else "--system"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@needs_systemd
def test_the_units_pass_verify(written):
    paths, how = written
    done = analyze(manager(how), "verify", "--man=no", *map(str, paths))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_verify_would_find_a_mistake(written):
    paths, how = written
    paths[0].write_text(paths[0].read_text().replace("LimitCORE", "LimitApple"))
    assert "LimitApple" in analyze(manager(how), "verify", "--man=no", *map(str, paths)).stderr


@needs_systemd
@pytest.mark.parametrize("written", [name for name in VARIANTS if name != "user"], indirect=True)
def test_the_exposure_is_small(written):
    """A user's services are left out: they cannot be kept from what the user may do."""
    paths, _ = written
    for path in paths:
        if path.suffix == ".service":
            arguments = ("--offline=true", f"--threshold={int(MAX_EXPOSURE * 10)}")
            done = analyze("security", *arguments, str(path))
            (exposure,) = re.findall(r"Overall exposure level .*: ([\d.]+)", done.stdout)
            assert float(exposure) <= MAX_EXPOSURE
            assert done.returncode == 0, done.stdout


# --- what stands in them ----------------------------------------------------------------


def test_supervision_and_real_time(tmp_path):
    settings = service(tmp_path)
    assert settings["Type"] == ["notify"]
    assert settings["WatchdogSec"] == ["2s"]
    assert settings["WatchdogSignal"] == ["SIGABRT"]
    assert settings["LimitMEMLOCK"] == ["infinity"]
    assert int(settings["LimitRTPRIO"][0]) >= 80
    assert settings["AmbientCapabilities"] == ["CAP_SYS_NICE CAP_IPC_LOCK"]
    assert "CPUSchedulingPolicy" not in settings
    assert settings["ExecStart"] == [f"{COMMAND} serve /etc/qnodeos/client.yaml"]


def test_only_the_devices_of_the_link(tmp_path):
    spi, shm = service(tmp_path), service(tmp_path, SHM)
    assert "char-spi rw" in spi["DeviceAllow"]
    assert spi["SupplementaryGroups"] == ["spi"]
    assert "ReadWritePaths" not in spi
    assert shm["DeviceAllow"] == ["/dev/cpu_dma_latency rw"]
    assert "SupplementaryGroups" not in shm
    assert shm["ReadWritePaths"] == ["-/run/qnodeos"]


def test_a_node_without_other_machines_has_no_network(tmp_path):
    assert service(tmp_path)["IPAddressDeny"] == ["any"]
    assert "IPAddressDeny" not in service(tmp_path, rest=REMOTE)


def test_systemd_listens_where_nobody_from_elsewhere_comes(tmp_path):
    _, socket_unit, _ = unit_names("client")
    units = render_units(node(tmp_path, rest=REMOTE), installation())
    settings = section(units[socket_unit], "Socket")
    assert settings["ListenStream"] == ["/run/qnodeos/api.sock", "[::1]:7001"]
    assert settings["FileDescriptorName"] == ["api"]
    assert settings["SocketUser"] == settings["SocketGroup"] == ["qnodeos"]


def test_a_user_has_no_account_to_name(tmp_path):
    settings = service(tmp_path, is_user=True)
    assert not settings.keys() & {"User", "Group", "AmbientCapabilities", "LimitRTPRIO"}
    units = render_units(node(tmp_path), installation(is_user=True))
    assert "SocketUser" not in section(units[unit_names("client")[1]], "Socket")


def test_homes_are_hidden_unless_something_is_there(tmp_path):
    assert service(tmp_path, command=Path("/opt/qnodeos/bin/qnodeos"))["ProtectHome"] == ["yes"]
    at_home = Path("/home/alice/.venv/bin/qnodeos")
    assert service(tmp_path, command=at_home)["ProtectHome"] == ["read-only"]
    pyenv = Path("/root/.pyenv/versions/3.11.7/bin/python3.11")
    assert service(tmp_path, interpreter=pyenv)["ProtectHome"] == ["read-only"]


def test_folders_in_the_way_are_named(tmp_path):
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    home.chmod(0o700)
    closed = closed_folders(installation(command=home / "bin" / "qnodeos"))
    assert home in closed
    assert home / "bin" not in closed
    assert all(not folder.stat().st_mode & 0o001 for folder in closed)


def test_every_unit_says_who_wrote_it(tmp_path):
    how = installation(metrics=Address.parse("tcp:127.0.0.1:9464"))
    units = render_units(node(tmp_path), how)
    assert list(units) == list(unit_names("client"))
    for text in units.values():
        assert text.startswith(MARK)
        assert "$" not in text
        assert "\n\n\n" not in text


def test_helpers_run_without_privileges(tmp_path):
    how = installation(
        metrics=Address.parse("tcp:127.0.0.1:9464"), controller=Path("/etc/qnodeos/c.yaml")
    )
    units = render_units(node(tmp_path), how)
    for name, command in (
        (unit_names("client")[2], "metrics --node /etc/qnodeos/client.yaml --listen tcp:127"),
        (CONTROLLER_UNIT, "controller /etc/qnodeos/c.yaml"),
    ):
        settings = section(units[name], "Service")
        assert command in settings["ExecStart"][0]
        assert settings["CapabilityBoundingSet"] == [""]
        assert settings["User"] == ["qnodeos"]
        assert settings["RestrictRealtime"] == ["yes"]


def test_the_instance_may_have_another_name(tmp_path):
    units = render_units(node(tmp_path), installation(name="spare"))
    assert list(units) == ["qnodeos-qnpu@spare.service", "qnodeos-qnpu@spare.socket"]
    assert "Requires=qnodeos-qnpu@spare.socket" in units["qnodeos-qnpu@spare.service"]


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "changes", "message"),
    [
        (SPI, {"node_file": Path("/tmp/client.yaml")}, r"the node file is /tmp/client\.yaml"),
        ("{link: shm, path: /var/tmp/c}", {}, r"device\.path is /var/tmp/c"),
        ("{link: shm, path: /home/a/c}", {}, "cannot write to homes"),
        (SPI, {"controller": Path("/tmp/c.yaml")}, "the controller's file"),
        (SPI, {"node_file": Path("/etc/a\nb.yaml")}, "cannot stand in a unit file"),
        (SPI, {"node_file": Path('/etc/"a.yaml')}, "cannot stand in a unit file"),
        (SPI, {"metrics": Address.parse("tcp:0.0.0.0:9464")}, "no TLS is configured"),
    ],
)
def test_what_the_sandbox_would_break_is_refused(tmp_path, device, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        render_units(node(tmp_path, device), installation(**changes))


def test_an_api_without_a_local_address_is_refused(tmp_path):
    rest = REMOTE.replace('"unix:/run/qnodeos/api.sock", "tcp:[::1]:7001", ', "")
    with pytest.raises(ConfigurationError, match="add a unix: or loopback"):
        render_units(node(tmp_path, rest=rest), installation())


# --- writing ----------------------------------------------------------------------------


def test_files_of_others_are_left_alone(tmp_path):
    ours, foreign = "a.service", "b.service"
    units = {ours: f"{MARK}`\nnew\n", foreign: f"{MARK}`\nnew\n"}
    (tmp_path / ours).write_text(f"{MARK}`\nold\n")
    (tmp_path / foreign).write_text("mine\n")
    with pytest.raises(CallerError, match=r"b\.service was not written by this command"):
        write_units(units, tmp_path)
    assert "old" in (tmp_path / ours).read_text()
    assert write_units(units, tmp_path, force=True) == {
        tmp_path / ours: "replaced",
        tmp_path / foreign: "replaced",
    }
    assert set(write_units(units, tmp_path).values()) == {"unchanged"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [ours, foreign]


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(CallerError, match="name one with --directory"):
        write_units({}, tmp_path / "nowhere")


# --- the command ------------------------------------------------------------------------


@pytest.fixture
def etc(tmp_path, monkeypatch):
    """A node file where the sandbox does not hide it (tests live in /tmp)."""
    monkeypatch.setattr("qnodeos.service.unit_files._TEMPORARY", ())
    node(tmp_path)
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(cli.app, ["install-service", *arguments])


def test_the_command_writes_and_says_what_is_next(etc):
    done = run(str(etc / "client.yaml"), "--directory", str(etc), "--account", "nobody")
    assert done.exit_code == 0, done.output
    assert f"written {etc}/qnodeos-qnpu@client.socket" in done.output
    assert "systemctl enable --now qnodeos-qnpu@client.socket" in done.output
    assert "systemctl daemon-reload" in done.output
    assert "useradd" not in done.output
    text = (etc / "qnodeos-qnpu@client.service").read_text()
    assert f"/qnodeos serve {etc}/client.yaml" in text


def test_the_command_also_installs_a_controller(etc):
    path = etc / "controller.yaml"
    arguments = (str(etc / "client.yaml"), "--directory", str(etc), "--controller", str(path))
    path.write_text("nodes: {}\nlinks: []\n")
    assert isinstance(run(*arguments).exception, ConfigurationError)
    path.write_text(
        "nodes:\n  client: {node_id: 0, address: 'tcp:127.0.0.1:7101'}\n"
        "  server: {node_id: 1, address: 'tcp:127.0.0.1:7102'}\nlinks: [[client, server]]\n"
    )
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert f"written {etc}/{CONTROLLER_UNIT}" in done.output
    assert f"enable --now {CONTROLLER_UNIT}" in done.output


def test_a_dry_run_writes_nothing(etc):
    before = sorted(etc.iterdir())
    done = run(str(etc / "client.yaml"), "--directory", str(etc), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "# qnodeos-qnpu@client.service\n" in done.output
    assert sorted(etc.iterdir()) == before


def test_who_may_not_write_is_told_what_else_there_is(etc, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("qnodeos.service.unit_files.write_units", refuse)
    done = run(str(etc / "client.yaml"), "--directory", str(etc))
    assert isinstance(done.exception, CallerError)
    assert "as root, use --user" in str(done.exception)


def test_a_user_needs_no_directory(etc, monkeypatch):
    monkeypatch.setenv("HOME", str(etc))
    done = run(str(etc / "client.yaml"), "--user", "--metrics", "tcp:127.0.0.1:9464")
    assert done.exit_code == 0, done.output
    folder = etc / ".config" / "systemd" / "user"
    assert sorted(path.name for path in folder.iterdir()) == sorted(unit_names("client"))
    assert "systemctl --user enable --now qnodeos-metrics@client.service" in done.output


@pytest.mark.parametrize(
    ("option", "value"), [("--account", "a b"), ("--account", "x\ny"), ("--name", "../x")]
)
def test_names_that_cannot_be_are_refused(etc, option, value):
    done = run(str(etc / "client.yaml"), "--dry-run", option, value)
    assert done.exit_code == 2
