"""`qnodeos squidasm`: scripts written for the simulator SquidASM, on simulated nodes."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Annotated

import typer


def squidasm(
    script: Annotated[Path, typer.Argument(help="The script.", show_default=False)],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGUMENT]...", help="Of the script.", show_default=False),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of all randomness; each simulation of the script has the next.")
    ] = 1,
    limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Virtual time that each run of the script's programs may take (1000 s).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a script written for the simulator SquidASM, unmodified, on simulated nodes.

    The names it imports mean qnodeos: programs, sockets, network configurations, routines. What
    is not to be had is refused by name. Neither SquidASM nor NetSquid is needed. Exit codes: 0 the
    script ran to its end; 1 it raised, or a program of its simulations did; 2 there is no such
    file.
    """
    from qnodeos.applications.squidasm.script import run_script
    from qnodeos.errors import QNodeOSError

    try:
        run_script(script, arguments or [], seed=seed, limit_s=limit)
    except QNodeOSError:
        raise
    except Exception:
        # The script's own: a module it lacks, say, is nothing that we could tell it to install.
        traceback.print_exc()
        raise typer.Exit(1) from None
