"""The data that figures are drawn from: where it is found, and what makes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from qnodeos.errors import ConfigurationError, MalformedTraceError
from qnodeos.experiments.figures.results import (
    DqcResult,
    LgtResult,
    MultitaskingResult,
    load_result,
)
from qnodeos.trace.csvformat import CHANNELS_MAX, LINE_CHARS_MAX
from qnodeos.trace.events import Event
from qnodeos.trace.load import FILES_MAX, load_traces
from qnodeos.trace.node_traces import NodeTraces

FOLDERS_MAX: Final = 1000
DESCRIPTION_CHARS_MAX: Final = 300
_OF_A_PART: Final = re.compile(r", [CQ]NPU of the [A-Za-z0-9._-]+$")


@dataclass(frozen=True)
class StoredTraces:
    """Traces of an experiment, read back.

    Attributes:
        folder: where they are.
        nodes: traces of each node.
        description: of the experiment, as the files give it.
    """

    folder: Path
    nodes: tuple[NodeTraces, ...]
    description: str


@dataclass(frozen=True)
class Source:
    """One kind of data.

    Attributes:
        files: what it consists of, for people.
        command: that makes it, ``{data}`` standing for the directory.
        find: the path of this data in one folder, None if it is not there.
        load: read and check what was found.
    """

    files: str
    command: str
    find: Callable[[Path], Path | None]
    load: Callable[[Path], Any]

    def find_below(self, directory: Path) -> Path | None:
        """The data in a directory or else in the first folder in it, by name, that has it.

        Raises:
            ConfigurationError: the directory has too many folders, or cannot be read.
        """
        try:
            folders = sorted(path for path in directory.iterdir() if path.is_dir())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(
                f"cannot read this directory: {error.strerror}; choose another --data",
                file=str(directory),
            ) from error
        if len(folders) > FOLDERS_MAX:
            raise ConfigurationError(
                f"more than {FOLDERS_MAX} folders in it; choose another --data",
                file=str(directory),
            )
        return next(filter(None, map(self.find, [directory, *folders])), None)

    def how_to_make(self, directory: Path) -> str:
        """The command that makes it."""
        return self.command.format(data=directory)


def load_stored_traces(folder: Path) -> StoredTraces:
    """Read the CSV traces in a folder.

    Raises:
        ConfigurationError: a file cannot be read or does not follow the format.
    """
    try:
        loaded = load_traces([folder])
    except MalformedTraceError as error:
        raise ConfigurationError(f"{error}; make the traces anew") from error
    except OSError as error:
        raise ConfigurationError(
            f"cannot read it: {error.strerror}", file=str(error.filename or folder)
        ) from error
    return StoredTraces(
        folder, loaded.nodes, _OF_A_PART.sub("", loaded.description)[:DESCRIPTION_CHARS_MAX]
    )


def _find_traces(folder: Path) -> Path | None:
    files = list(islice(folder.glob("trace_*_qnpu.csv"), FILES_MAX))
    return folder if files and not any(map(_shows_several_programs, files)) else None


def _shows_several_programs(path: Path) -> bool:
    """Whether a trace is not of DQC alone, by its header; not for one that cannot be read."""
    if not path.is_file():
        return False
    programs = 0
    try:
        with path.open(encoding="utf-8") as stream:
            for _ in range(CHANNELS_MAX):
                line = stream.readline(LINE_CHARS_MAX)
                if not line.startswith("#"):
                    break
                programs += f"={Event.PROCMGR_SUBROUTINE_ADDED.name}_P" in line
    except (OSError, UnicodeDecodeError):
        return False
    return programs > 1


def _find_file(name: str) -> Callable[[Path], Path | None]:
    return lambda folder: folder / name if (folder / name).is_file() else None


DQC: Final = Source(
    "dqc.json",
    "qnodeos experiment dqc --json {data}/dqc.json --out {data}",
    _find_file("dqc.json"),
    lambda path: load_result(path, DqcResult),
)
LGT: Final = Source(
    "lgt.json",
    "qnodeos experiment lgt --json {data}/lgt.json",
    _find_file("lgt.json"),
    lambda path: load_result(path, LgtResult),
)
MULTITASKING: Final = Source(
    "multitasking.json",
    "qnodeos experiment multitasking --scheduler fcfs,combined --json {data}/multitasking.json",
    _find_file("multitasking.json"),
    lambda path: load_result(path, MultitaskingResult),
)
TRACES: Final = Source(
    "trace_*.csv of DQC alone",
    "qnodeos experiment dqc --out {data}/traces",
    _find_traces,
    load_stored_traces,
)
