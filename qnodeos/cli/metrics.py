"""`qnodeos metrics`: Prometheus metrics of a node's QNPU, from a process of their own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer

_LOOK_S: Final = 0.5
"""How long a signal may wait for us."""


def metrics(
    node_file: Annotated[
        Path, typer.Option("--node", metavar="NODE.yaml", help="The node to ask.")
    ],
    listen: Annotated[
        str,
        typer.Option(metavar="tcp:HOST:PORT", help="Where Prometheus finds them, under /metrics."),
    ] = "tcp:127.0.0.1:9464",
) -> None:
    """Serve metrics of a QNPU to Prometheus, until SIGTERM or Ctrl-C.

    The QNPU need not run yet: until it does, the metric qnodeos_up is 0. An address that can be
    reached from elsewhere needs the certificates of the node file, and asks scrapers for theirs.
    """
    from qnodeos.service.metrics import MetricsServer, QnpuCollector, wait_for_request
    from qnodeos.service.node_file import load_node
    from qnodeos.service.notify import Notifier
    from qnodeos.service.operator import Operator
    from qnodeos.signals import StopSignals
    from qnodeos.transport import Address

    node = load_node(node_file)
    with ExitStack() as cleanup:
        notifier = cleanup.enter_context(Notifier())
        operator = cleanup.enter_context(Operator(node, "metrics"))
        server = cleanup.enter_context(
            MetricsServer(Address.parse(listen), node.tls, [QnpuCollector(operator, node.name)])
        )
        stop = cleanup.enter_context(StopSignals())
        typer.echo(f"{node.name}: metrics at {server.address}")
        notifier.ready(f"metrics at {server.address}")
        while not stop.is_set():
            wait_for_request(server, _LOOK_S)
        notifier.stopping()
