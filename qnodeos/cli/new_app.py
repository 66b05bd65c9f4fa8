"""`qnodeos new-app`: an application to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new_app(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="New, or empty.", show_default=False)
    ],
    roles: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Who creates entanglement, and who receives; or three to six in a chain.",
        ),
    ] = "alice,bob",
) -> None:
    """Write an application, which runs at once.

    It has a program for each role, their inputs, the network that is simulated, and a test.
    docs/tutorial.md begins here, with two roles. More share GHZ states along a chain.
    """
    from qnodeos.applications.template import write_application

    written = write_application(directory, tuple(roles.split(",")))
    for path in sorted(written):
        typer.echo(str(path))
    typer.echo(f"Run it with: qnodeos run --app-dir {directory}")
