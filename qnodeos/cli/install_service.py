"""`qnodeos install-service`: the systemd units of a node."""

from __future__ import annotations

import grp
import pwd
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qnodeos.errors import CallerError, ConfigurationError

if TYPE_CHECKING:
    from qnodeos.service.node_file import NodeFile
    from qnodeos.service.unit_files import Installation

SYSTEM_DIRECTORY = Path("/etc/systemd/system")
USER_DIRECTORY = Path("~/.config/systemd/user")
_INSTANCE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_ACCOUNT = r"[a-z_][a-z0-9_-]{0,30}"


def install_service(
    node_file: Annotated[Path, typer.Argument(metavar="NODE.yaml", help="The node's file.")],
    name: Annotated[
        str, typer.Option(help="Instance name of the units [default: the node's name].")
    ] = "",
    directory: Annotated[
        Path | None,
        typer.Option(help=f"Where to [default: {SYSTEM_DIRECTORY}, or {USER_DIRECTORY}]."),
    ] = None,
    account: Annotated[
        str, typer.Option(help="User and group that the service runs as.")
    ] = "qnodeos",
    user: Annotated[
        bool,
        typer.Option("--user", help="For your own service manager: no root needed, no real time."),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="tcp:HOST:PORT", help="Also a unit that serves metrics there."),
    ] = None,
    controller: Annotated[
        Path | None,
        typer.Option(metavar="CONTROLLER.yaml", help="Also a unit that runs the controller."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the units and write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that this command did not write.")
    ] = False,
) -> None:
    """Write the systemd units that run the QNPU of a node, and what goes with it."""
    from qnodeos.service.controller_file import load_controller
    from qnodeos.service.node_file import load_node
    from qnodeos.service.unit_files import Installation, render_units, write_units
    from qnodeos.transport import Address

    node = load_node(node_file)
    if controller is not None:
        load_controller(controller)  # a file that is wrong is better found now
    if name and not re.fullmatch(_INSTANCE, name):
        raise typer.BadParameter("use letters, digits, `_`, `.` and `-`", param_hint="--name")
    if not re.fullmatch(_ACCOUNT, account):
        raise typer.BadParameter(
            "use lower-case letters, digits, `_` and `-`", param_hint="--account"
        )
    installation = Installation(
        node_file=node_file.absolute(),
        command=_command(),
        account=account,
        name=name or node.name,
        is_user=user,
        controller=None if controller is None else controller.absolute(),
        metrics=None if metrics is None else Address.parse(metrics),
    )
    units = render_units(node, installation)
    if dry_run:
        for file, text in units.items():
            typer.echo(f"# {file}\n{text}")
        return
    place = directory or (USER_DIRECTORY.expanduser() if user else SYSTEM_DIRECTORY)
    if user and directory is None:
        place.mkdir(parents=True, exist_ok=True)
    try:
        actions = write_units(units, place, force=force)
    except PermissionError:
        raise CallerError(
            f"this user may not write to {place}; run this as root, use --user for units of your "
            "own, or --dry-run to see them"
        ) from None
    for path, action in actions.items():
        typer.echo(f"{action} {path}")
    typer.echo("\nNext:")
    for step in _next_steps(node, installation):
        typer.echo(f"  {step}")


def _command() -> Path:
    """The command that the units start: that of this very installation.

    Raises:
        ConfigurationError: there is none.
    """
    path = Path(sys.executable).with_name("qnodeos")
    if not path.is_file():
        found = shutil.which("qnodeos")
        if found is None:
            raise ConfigurationError(
                f"there is no {path} for the units to start; install qnodeos with pip"
            )
        path = Path(found)
    return path.absolute()


def _next_steps(node: NodeFile, installation: Installation) -> list[str]:
    """What is left to do, in order, as commands."""
    from qnodeos.service.unit_files import CONTROLLER_UNIT, closed_folders, unit_names

    service, socket, metrics = unit_names(installation.name)
    systemctl = "systemctl --user" if installation.is_user else "systemctl"
    steps = []
    if not installation.is_user:
        account = installation.account
        if not _exists(pwd.getpwnam, account):
            steps.append(f"useradd --system --user-group --shell /usr/sbin/nologin {account}")
        for folder in closed_folders(installation):
            steps.append(
                f"# {account} cannot enter {folder}: move what is needed of it, for example to "
                "/opt/qnodeos and /etc/qnodeos"
            )
        if node.device.link == "spidev" and not _exists(grp.getgrnam, "spi"):
            steps.append("groupadd --system spi   # and a udev rule, see docs/deployment.md")
    steps += [
        f"qnodeos doctor {installation.node_file}",
        f"{systemctl} daemon-reload",
        f"{systemctl} enable --now {socket} {service}",
    ]
    if installation.metrics is not None:
        steps.append(f"{systemctl} enable --now {metrics}")
    if installation.controller is not None:
        steps.append(f"{systemctl} enable --now {CONTROLLER_UNIT}")
    steps.append(f"{systemctl} status {service}")
    return steps


def _exists(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except KeyError:
        return False
    return True
