"""`qnodeos controller`: gives the nodes of a network their time bins."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import Annotated

import typer


def controller(
    path: Annotated[
        Path, typer.Argument(metavar="CONTROLLER.yaml", help="The nodes and links of the network.")
    ],
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write how the nodes stood here, at the end."),
    ] = None,
) -> None:
    """Give all nodes of a network the same time bins, until SIGTERM or Ctrl-C.

    Nodes that are not there yet, or start anew, get theirs when they come. The nodes keep their
    bins when this ends, and the next controller keeps them too.
    """
    from qnodeos.service.controller_file import load_controller
    from qnodeos.service.controller_run import run_controller
    from qnodeos.service.notify import Notifier
    from qnodeos.signals import StopSignals

    file = load_controller(path)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        typer.echo(f"{file.name}: {line}")

    with StopSignals() as stop, Notifier() as notifier:
        status = run_controller(file, stop, incarnation=time.time_ns(), say=say, notifier=notifier)
        notifier.stopping()
    if json is not None:
        json.write_text(json_module.dumps(status, indent=1) + "\n", "utf-8")
