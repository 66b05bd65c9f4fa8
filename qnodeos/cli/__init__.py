"""The command line: `qnodeos`.

Exit codes: 0 done; 1 the run failed; 2 the command or a configuration file is wrong;
130 interrupted (what was measured until then is kept and reported).
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qnodeos import __version__
from qnodeos._packages import PACKAGES
from qnodeos.cli import (
    bench,
    calibrate,
    configuration,
    conformance,
    controller,
    doctor,
    experiment,
    figures,
    install_service,
    lab,
    metrics,
    network,
    new_app,
    ps,
    results,
    run,
    selftest,
    serve,
    squidasm,
    sweep,
    timing,
    trace,
    up,
)
from qnodeos.errors import ConfigurationError, QNodeOSError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class _Commands(TyperGroup):
    """All commands; their refusals of a value say what is wrong, and nothing else."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # Typer passes on what pydantic puts before the message of any exception.
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="qnodeos",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph; keeps [brackets] as they are
)
app.add_typer(experiment.app, name="experiment")
app.add_typer(bench.app, name="bench")
app.add_typer(trace.app, name="trace")
app.add_typer(results.app, name="results")
app.add_typer(network.app, name="network")
app.command("demo")(experiment.demo)
app.command("figures")(figures.figures)
app.command("config")(configuration.config)
app.command("calibrate")(calibrate.calibrate)
app.command("new-app")(new_app.new_app)
app.command("run")(run.run)
app.command("squidasm")(squidasm.squidasm)
app.command("conformance")(conformance.conformance)
app.command("serve")(serve.serve)
app.command("selftest")(selftest.selftest)
app.command("sweep")(sweep.sweep)
app.command("timing")(timing.timing)
app.command("lab")(lab.lab)
app.command("up")(up.up)
app.command("controller")(controller.controller)
app.command("ps")(ps.ps)
app.command("top")(ps.top)
app.command("metrics")(metrics.metrics)
app.command("doctor")(doctor.doctor)
app.command("install-service")(install_service.install_service)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A quantum network operating system, with a simulated laboratory under it."""


def main() -> None:
    """Entry point of the `qnodeos` command."""
    try:
        app()
    except ConfigurationError as error:
        typer.echo(f"qnodeos: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except (QNodeOSError, OSError) as error:
        typer.echo(f"qnodeos: {type(error).__name__}: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in {"qnodeos", *PACKAGES}:
            raise
        typer.echo(
            f"qnodeos: this needs the package {package}; install the extra 'lab': "
            "pip install 'qnodeos[lab]'",
            err=True,
        )
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        typer.echo("qnodeos: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
