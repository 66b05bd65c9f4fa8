"""The systemd units of a node, rendered from its node file.

The texts are in `units/`; here is what differs from node to node. The host API's sockets that
stay on the machine are opened by systemd, so that programs can connect before the QNPU is up;
everything else the service opens itself.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from qnodeos.errors import CallerError, ConfigurationError
from qnodeos.service.node_file import NodeFile
from qnodeos.transport import Address
from qnodeos.transport.listening import check_address

MARK: Final = "# Written by `qnodeos install-service"
"""How the files begin that may be replaced without asking."""

CONTROLLER_UNIT: Final = "qnodeos-controller.service"

MAX_UNIT_BYTES: Final = 1 << 20
"""Longest file looked at before it is replaced; a unit has a few thousand bytes."""

_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY: Final = (Path("/tmp"), Path("/var/tmp"))


@dataclass(frozen=True)
class Installation:
    """How a node is installed, besides what its file says.

    Attributes:
        node_file: absolute path of the node file.
        command: absolute path of the `qnodeos` command.
    interpreter: the Python that runs it, behind all links.
        account: user and group the service runs as; also owns the API's sockets.
    name: instance name of the units; that of the node if empty.
        is_user: units of a user's own service manager, without account and capabilities.
        metrics: where metrics are served; None for no metrics unit.
    controller: absolute path of a controller file; None for no controller unit.
    """

    node_file: Path
    command: Path
    interpreter: Path = field(default_factory=lambda: Path(sys.executable).resolve())
    account: str = "qnodeos"
    name: str = ""
    is_user: bool = False
    metrics: Address | None = None
    controller: Path | None = None


def unit_names(name: str) -> tuple[str, str, str]:
    """Names of the service, socket and metrics unit of an instance."""
    qnpu = f"qnodeos-qnpu@{name}"
    return f"{qnpu}.service", f"{qnpu}.socket", f"qnodeos-metrics@{name}.service"


def render_units(node: NodeFile, installation: Installation) -> dict[str, str]:
    """The unit files of a node.

    Args:
        node: with absolute paths.
        installation: how it is installed.

    Returns:
        Their texts by file name.

    Raises:
        ConfigurationError: the node cannot be served from a sandboxed unit.
    """
    service_unit, socket_unit, metrics_unit = unit_names(installation.name or node.name)
    _check_places(node, installation)
    values = {
        "name": node.name,
        "service_unit": service_unit,
        "socket_unit": socket_unit,
        "command": _quoted(installation.command),
        "node_file": _quoted(installation.node_file),
        "account": installation.account,
        "groups": _groups(node),
        "devices": _devices(node),
        "writable": _writable(node),
        "network": _network(node),
        "protect_home": _protect_home(installation),
        "listen": "\n".join(f"ListenStream={place}" for place in _listened(node)),
        "socket_owner": _socket_owner(installation),
    }
    is_user = installation.is_user
    units = {
        service_unit: _fill("qnpu-user.service" if is_user else "qnpu.service", values),
        socket_unit: _fill("qnpu.socket", values),
    }
    if installation.metrics is not None:
        check_address(installation.metrics, node.tls)
        units[metrics_unit] = _helper(
            installation,
            helper_unit=metrics_unit,
            description=f"Prometheus metrics of the quantum network node {node.name}",
            after=service_unit,
            wants="",
            arguments=f"metrics --node {values['node_file']} --listen {installation.metrics}",
        )
    if installation.controller is not None:
        units[CONTROLLER_UNIT] = _helper(
            installation,
            helper_unit=CONTROLLER_UNIT,
            description="Controller of a quantum network: its time bins",
            after=f"network-online.target {service_unit}",
            wants="Wants=network-online.target",
            arguments=f"controller {_quoted(installation.controller)}",
        )
    return units


def _helper(installation: Installation, **values: str) -> str:
    """A process beside the QNPU, without privileges.

    Args:
        installation: how it is installed.
        values: for the template; those all helpers share are added.
    """
    is_user, account = installation.is_user, installation.account
    values |= {
        "command": _quoted(installation.command),
        "scope": "--user" if is_user else "--system",
        "target": "default.target" if is_user else "multi-user.target",
        "user": "" if is_user else f"User={account}\nGroup={account}",
        "protect_home": _protect_home(installation),
    }
    values["sandbox"] = "" if is_user else _fill("helper-sandbox", values).rstrip()
    return _fill("helper.service", values)


def write_units(units: dict[str, str], directory: Path, *, force: bool = False) -> dict[Path, str]:
    """Write unit files; all of them or none.

    Args:
        units: texts by file name.
        directory: where to; must exist.
        force: replace files of others, too.

    Returns:
        What was done to each file: "written", "replaced" or "unchanged".

    Raises:
        CallerError: the directory is missing, or a file there is not ours.
        OSError: a file cannot be written.
    """
    if not directory.is_dir():
        raise CallerError(f"{directory} is not a directory; name one with --directory")
    actions: dict[Path, str] = {}
    for name, text in units.items():
        path = directory / name
        actions[path] = _action(path, text, force)
    for path, action in actions.items():
        if action != "unchanged":
            # Beside it and then in its place, so that systemd never reads half a unit.
            draft = path.with_name(f".{path.name}.new")
            draft.write_text(units[path.name], "utf-8")
            draft.chmod(0o644)
            draft.replace(path)
    return actions


def _action(path: Path, text: str, force: bool) -> str:
    if not path.exists():
        return "written"
    with path.open("rb") as file:
        present = file.read(MAX_UNIT_BYTES).decode("utf-8", "replace")
    if present == text:
        return "unchanged"
    if not present.startswith(MARK) and not force:
        raise CallerError(
            f"{path} was not written by this command; move it away, or replace it with --force"
        )
    return "replaced"


def _template(name: str) -> Template:
    return Template((files("qnodeos") / "service" / "units" / name).read_text("utf-8"))


def _fill(name: str, values: dict[str, str]) -> str:
    """A unit from its template; a line that consists of an empty value is left out."""
    lines = []
    for line in _template(name).template.splitlines():
        filled = Template(line).substitute(values)
        if filled or not line:
            lines.append(filled)
    return "\n".join(lines) + "\n"


def _quoted(path: Path, prefix: str = "") -> str:
    """A path as a word of a unit file (systemd.syntax(7), "Quoting")."""
    text = prefix + _plain(path)
    return f'"{text}"' if " " in text else text


def _plain(path: Path) -> str:
    """A path as the rest of a line of a unit file.

    Raises:
        ConfigurationError: it has characters that systemd reads differently in different places.
    """
    text = str(path)
    if any(character in "\"'\\$;" or not character.isprintable() for character in text):
        raise ConfigurationError(
            f"{path} cannot stand in a unit file; use a path of letters, digits and . _ - /"
        )
    return text.replace("%", "%%")  # or it would be one of systemd's specifiers


def _listened(node: NodeFile) -> list[str]:
    """What systemd listens on: the addresses of the API that stay on the machine."""
    places = []
    for address in node.api.listen:
        if address.path:
            places.append(_plain(Path(address.path)))
        elif address.is_local:
            # systemd takes numbers only.
            host = "127.0.0.1" if address.host == "localhost" else address.host
            places.append(str(Address(host=host, port=address.port)).removeprefix("tcp:"))
    if not places:
        raise ConfigurationError(
            "systemd opens the API's local sockets, and there is none; add a unix: or loopback "
            "address",
            field="api.listen",
        )
    return places


def _socket_owner(installation: Installation) -> str:
    if installation.is_user:
        return ""
    return f"SocketUser={installation.account}\nSocketGroup={installation.account}"


def _groups(node: NodeFile) -> str:
    return "SupplementaryGroups=spi" if node.device.link == "spidev" else ""


def _devices(node: NodeFile) -> str:
    return "DeviceAllow=char-spi rw" if node.device.link == "spidev" else ""


def _writable(node: NodeFile) -> str:
    """Folders besides its own that the service writes to: that of the channel."""
    if node.device.link != "shm":
        return ""
    # With a minus, a folder that the lab has not made yet is no error.
    return f"ReadWritePaths={_quoted(Path(node.device.path).parent, '-')}"


def _network(node: NodeFile) -> str:
    """No traffic with other machines for a node that has none to talk to."""
    addresses = [*node.api.listen, *(peer.address for peer in node.peers.values())]
    if node.peer is not None:
        addresses.append(node.peer.listen)
    if all(address.is_local for address in addresses):
        return "IPAddressDeny=any\nIPAddressAllow=localhost"
    return ""


def _protect_home(installation: Installation) -> str:
    """Hide homes, unless the program or the node file lives in one."""
    used = (installation.interpreter, installation.command, installation.node_file)
    return "read-only" if any(_is_under(path, _HOMES) for path in used) else "yes"


def closed_folders(installation: Installation) -> list[Path]:
    """Folders that an account other than their owner's cannot pass, on the way to our files.

    Those of a Python in a home directory (pyenv, uv), typically.
    """
    closed = []
    for path in (installation.interpreter, installation.command, installation.node_file):
        for folder in reversed(path.parents):
            try:
                is_open = bool(folder.stat().st_mode & 0o001)
            except OSError:
                continue  # not there yet: nothing is known
            if not is_open and folder not in closed:
                closed.append(folder)
    return closed


def _check_places(node: NodeFile, installation: Installation) -> None:
    """Refuse paths that the sandbox would hide.

    Raises:
        ConfigurationError: names the path.
    """
    if installation.is_user:
        return
    places = {"the node file": installation.node_file, "the command": installation.command}
    if installation.controller is not None:
        places["the controller's file"] = installation.controller
    if node.device.link == "shm":
        places["device.path"] = Path(node.device.path)
    for what, path in places.items():
        if _is_under(path, _TEMPORARY):
            raise ConfigurationError(
                f"{what} is {path}, and the service has a /tmp of its own (PrivateTmp=yes); "
                "move it, for example to /etc/qnodeos or /run/qnodeos"
            )
    if node.device.link == "shm" and _is_under(Path(node.device.path), _HOMES):
        raise ConfigurationError(
            f"device.path is {node.device.path}, and the service cannot write to homes; move it, "
            "for example to /run/qnodeos"
        )


def _is_under(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
