"""`qnodeos ps` and `qnodeos top`: what a node's QNPU is doing."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qnodeos.service.operator import Operator, Snapshot

NodeOption = Annotated[Path, typer.Option("--node", metavar="NODE.yaml", help="The node to ask.")]


def ps(
    node_file: NodeOption,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the processes here.")
    ] = None,
) -> None:
    """List the processes of a node's QNPU.

    The processes of all programs are shown to the user who runs the service, and to root, over
    a Unix socket of the API.
    """
    from qnodeos.cli.views import process_dicts, process_table
    from qnodeos.service.node_file import load_node
    from qnodeos.service.operator import connect_operator

    with connect_operator(load_node(node_file), "ps") as client:
        processes = client.processes()
        node = client.welcome.node_name
    Console().print(process_table(processes))
    if json is not None:
        report = {"node": node, "processes": process_dicts(processes)}
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(json_module.dumps(report, indent=1) + "\n", "utf-8")


def top(
    node_file: NodeOption,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, for scripts.")] = False,
) -> None:
    """Show processes, queue, time bins and ticks of a node's QNPU, live, until Ctrl-C."""
    from rich.live import Live

    from qnodeos.cli.views import overview
    from qnodeos.service.node_file import load_node
    from qnodeos.service.operator import Operator

    node = load_node(node_file)
    console = Console()
    with Operator(node, "top") as operator:
        if once:
            console.print(overview(operator.ask(), None))
            return
        try:
            with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
                before: Snapshot | None = None
                while True:
                    view, before = _look(operator, before)
                    live.update(view, refresh=True)
                    time.sleep(interval)
        except KeyboardInterrupt:
            return


def _look(operator: Operator, before: Snapshot | None) -> tuple[RenderableType, Snapshot | None]:
    """What to show now, and what to compare the next look with."""
    from rich.text import Text

    from qnodeos.cli.views import overview
    from qnodeos.errors import PeerError

    try:
        now = operator.ask()
    except PeerError as error:
        return Text(str(error), "bold red"), None
    return overview(now, before), now
