"""`qnodeos network`: pairs across networks of many simulated nodes, and what such a network is."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from qnodeos.cli.experiment import JsonFile, Quiet, Seed

app = typer.Typer(help="Networks of many simulated nodes.", no_args_is_help=True)

NODES_MAX = 64


class Topology(StrEnum):
    """Shapes of networks."""

    CHAIN = "chain"
    STAR = "star"


class Kind(StrEnum):
    """What becomes of the pairs."""

    KEEP = "keep"
    MEASURE = "measure"


@app.command()
def pairs(
    topology: Annotated[
        Topology, typer.Option(help="Nodes in a row, or around a hub; unless --network is given.")
    ] = Topology.CHAIN,
    nodes: Annotated[
        int, typer.Option(min=2, max=NODES_MAX, help="Nodes, the hub of a star among them.")
    ] = 5,
    pairs_: Annotated[
        int, typer.Option("--pairs", min=3, max=100_000, help="Pairs that each flow asks for.")
    ] = 100,
    link_fidelity: Annotated[
        float, typer.Option(min=0.25, max=1.0, help="Fidelity of the Werner pairs of every link.")
    ] = 1.0,
    network: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A network file (docs/networks.md).")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="NODE", help="The node that asks for pairs.")
    ] = None,
    destination: Annotated[
        str | None, typer.Option("--to", metavar="NODE", help="The other end.")
    ] = None,
    kind: Annotated[
        Kind, typer.Option(help="Keep both halves, or measure them at once in X, Y and Z in turn.")
    ] = Kind.KEEP,
    seed: Seed = 1,
    json: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Pairs between nodes that are no neighbours, beside what they should be.

    Without --from and --to: between the two ends of a chain, or between all opposite leaves of
    a star at once.
    """
    if (source is None) is not (destination is None):
        raise typer.BadParameter("give both, or none", param_hint="--from and --to")
    if quiet and json is None:
        raise typer.BadParameter("nothing would be kept: add --json", param_hint="--quiet")
    from qnodeos.assembly import load_description
    from qnodeos.cli.network_run import run_and_report, shaped
    from qnodeos.experiments.network_pairs import PairsSettings, ends_of_chain, opposite_leaves

    if network is not None:
        description = load_description(network)
    else:
        description = shaped(topology.value, nodes, link_fidelity)
    flows: tuple[tuple[str, str], ...]
    if source is not None and destination is not None:
        flows = ((source, destination),)
    elif network is not None:
        raise typer.BadParameter("needed with --network", param_hint="--from and --to")
    elif topology is Topology.CHAIN:
        flows = ends_of_chain(description)
    else:
        flows = opposite_leaves(description)
        if not flows:
            raise typer.BadParameter("a star needs two leaves, so 3 nodes", param_hint="--nodes")
    run_and_report(
        PairsSettings(description, flows, pairs_, kind is Kind.MEASURE, seed), json, quiet=quiet
    )


@app.command()
def describe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A network file.")],
    netqasm: Annotated[
        bool, typer.Option("--netqasm", help="The file is a network.yaml of NetQASM.")
    ] = False,
) -> None:
    """Nodes, links, time bins and routes of a network file."""
    from rich.console import Console

    from qnodeos.assembly import load_description, read_netqasm_network
    from qnodeos.experiments.network_table import description_tables

    read = read_netqasm_network if netqasm else load_description
    console = Console()
    for table in description_tables(read(file)):
        console.print(table)
