"""`qnodeos serve`: the QNPU service of one node."""

from __future__ import annotations

import json as json_module
import sys
import time
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qnodeos.service.service import QnpuService


def serve(
    path: Annotated[Path, typer.Argument(metavar="NODE.yaml", help="The node.")],
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write the trace of the QNPU into this folder, at the end."
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what was counted here, at the end."),
    ] = None,
) -> None:
    """Run the QNPU of a node, until SIGTERM or Ctrl-C.

    Without privileges it runs too, and says what it runs without.
    """
    from qnodeos.assembly import build_service
    from qnodeos.service.node_file import load_node
    from qnodeos.service.notify import Notifier, take_sockets
    from qnodeos.service.realtime import RealtimeSettings, prepare_process, settle_memory
    from qnodeos.service.voice import Voice

    node = load_node(path)
    for folder in (trace, json.parent if json is not None else None):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    say = Voice(lambda line: typer.echo(f"{node.name}: {line}"), descriptor=_standard_output())
    settings = RealtimeSettings(**node.realtime.model_dump(exclude={"rehearse_us"}))
    with ExitStack() as cleanup:
        notifier = cleanup.enter_context(Notifier())
        # Before there is an engine, whose ticks would not be served meanwhile.
        locked = settle_memory(settings)
        service = cleanup.enter_context(
            closing(
                build_service(
                    node,
                    incarnation=time.time_ns(),
                    activated=take_sockets(),
                    notifier=notifier,
                    say=say,
                )
            )
        )
        say(f"listening on {', '.join(map(str, service.server.addresses))}")
        prepared = cleanup.enter_context(prepare_process(settings, locked))
        service.realtime = prepared.report
        for line in prepared.report.lines():
            say(line)
        try:
            reason = service.run()
        finally:
            # Also what led to a failure is worth keeping.
            counted = service.statistics()
            if trace is not None:
                _write_trace(service, trace)
            if json is not None:
                json.write_text(json_module.dumps(counted, indent=1) + "\n", "utf-8")
        say(f"ended by {reason}")


def _standard_output() -> int | None:
    try:
        return sys.stdout.fileno()
    except OSError:  # a stand-in
        return None


def _write_trace(service: QnpuService, folder: Path) -> None:
    from qnodeos.trace.csvformat import write_trace_csv

    recorder = service.trace
    path = folder / f"{service.node.name}-qnpu.csv"
    with path.open("w", encoding="utf-8") as stream:
        write_trace_csv(
            stream,
            recorder.columns(),
            unit_ns=recorder.unit_ns,
            created=datetime.now().replace(microsecond=0),
            description=f"QNPU of node {service.node.name}",
        )
