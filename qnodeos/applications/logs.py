"""Log files of simulated applications, laid out as `netqasm simulate` does.

Each run has a directory named after its time, with `results.yaml` and the log files of its
programs; if there are several rounds, those of each round are in a directory of their own.
Written are what programs log with NetQASM's `get_new_app_logger` (`<role>_app_log.yaml`), the
classical messages they sent and received (`<role>_class_comm.yaml`), and what they printed and
logged otherwise (`<role>_output.txt`). Not written are NetQASM's logs of single instructions, of
subroutines and of the network; the traces of `qnodeos` have these.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netqasm.logging.output import reset_struct_loggers, save_all_struct_loggers
from netqasm.sdk.config import LogConfig
from netqasm.util.yaml import dump_yaml

from qnodeos.applications.messages import Messages
from qnodeos.cnpu.results import settled
from qnodeos.files import MAKE_ROOM, check_directory, reporting, write_whole
from qnodeos.trace.export import write_traces
from qnodeos.trace.node_traces import NodeTraces


class RunLogs:
    """The log files of one run. Close it, or use it as a context manager.

    Args:
        directory: of this run (`run_directory`); None keeps nothing.
        rounds: how many there will be.
        application: directory of the application, for NetQASM's configuration.
    """

    def __init__(self, directory: Path | None, rounds: int, application: Path | None) -> None:
        self.directory = directory
        self.rounds = rounds
        self._application = application
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if directory is None:
            # Programs may want to write their logs all the same.
            self._scratch = tempfile.TemporaryDirectory(prefix="qnodeos-run-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        reset_struct_loggers()
        if self._scratch is not None:
            self._scratch.cleanup()

    def config(self, number: int) -> LogConfig:
        """NetQASM's configuration for the programs of a round."""
        place = self._place(number)
        if self.rounds > 1 and self.directory is not None:
            place.mkdir()
        reset_struct_loggers()
        return LogConfig(
            log_subroutines_dir=str(place),
            comm_log_dir=str(place),
            app_dir=None if self._application is None else str(self._application),
            log_dir=str(place.parent if self.directory is None else self.directory.parent),
        )

    def round_done(self, number: int, output: Mapping[str, str], messages: Messages) -> None:
        """Write the logs of a round.

        Args:
            number: of the round.
            output: what each program printed and logged.
            messages: what the programs sent each other.

        Raises:
            ResultsNotWrittenError: they cannot be written.
        """
        if self.directory is None:
            reset_struct_loggers()
            return
        place = self._place(number)
        with reporting(place, MAKE_ROOM):
            save_all_struct_loggers()
            for role, entries in messages.log.items():
                if entries:
                    dump_yaml(entries, str(place / f"{role.lower()}_class_comm.yaml"))
        for role, text in output.items():
            if text:
                write_whole(place / f"{role}_output.txt", text)

    def traces_done(self, number: int, nodes: Sequence[NodeTraces], formats: Sequence[str]) -> None:
        """Write the traces of a round.

        Args:
            number: of the round.
            nodes: what was recorded.
            formats: of `qnodeos.trace.export.FORMATS`.

        Raises:
            ConfigurationError: a format is unknown, or its package is missing.
            ResultsNotWrittenError: they cannot be written.
        """
        if self.directory is not None:
            description = f"round {number} of {self.directory.name} (simulated)"
            write_traces(self._place(number), nodes, formats, description, datetime.now(UTC))

    def run_done(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Write the results of all rounds.

        Raises:
            ResultsNotWrittenError: they cannot be written.
        """
        if self.directory is None:
            return
        path = self.directory / "results.yaml"
        with reporting(path, MAKE_ROOM):
            dump_yaml(settled([dict(result) for result in results]), str(path))

    def drop_after(self, number: int) -> None:
        """Remove the logs of rounds that do not count, because an earlier one failed.

        Args:
            number: of the round that failed.
        """
        if self.directory is not None and self.rounds > 1:
            for place in self.directory.iterdir():
                if place.name.isdecimal() and int(place.name) > number:
                    shutil.rmtree(place, ignore_errors=True)

    def _place(self, number: int) -> Path:
        if self.directory is None:
            assert self._scratch is not None
            return Path(self._scratch.name)
        return self.directory if self.rounds == 1 else self.directory / str(number)


def run_directory(directory: Path | None) -> Path | None:
    """Make the directory of a run, named after the time; a number tells those of one second apart.

    Args:
        directory: where; None for nowhere.

    Raises:
        ConfigurationError: nothing can be written there.
    """
    if directory is None:
        return None
    check_directory(directory, "log directory")
    name = f"{datetime.now():%Y%m%d-%H%M%S}"
    for number in count(1):
        place = directory / (name if number == 1 else f"{name}-{number}")
        try:
            place.mkdir()
        except FileExistsError:
            continue
        return place
    raise AssertionError
