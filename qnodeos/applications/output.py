"""What programs print and log, kept apart for each program.

All programs of a simulation share one interpreter, and so its standard output and NetQASM's
logger. While `capturing`, what a program writes there is kept with that program; what anybody
else writes goes where it always went.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from io import TextIOBase
from typing import Any, Final, TextIO

from netqasm.logging.glob import get_netqasm_logger

MAX_CHARACTERS: Final = 1 << 20
"""Kept of each program in a round."""
_CUT: Final = f"\n(more than {MAX_CHARACTERS} characters; the rest was not kept)\n"

Echo = Callable[[str, str], None]
"""Called with a program's name and a line it has written."""


class ProgramOutput:
    """What one program has written.

    Args:
        name: of the program.
        echo: called with every line as well.
    """

    def __init__(self, name: str, echo: Echo | None = None) -> None:
        self.name = name
        self._echo = echo
        self._parts: list[str] = []
        self._characters = 0
        self._line = ""

    @property
    def text(self) -> str:
        """All of it, up to `MAX_CHARACTERS`."""
        return "".join(self._parts)

    def write(self, text: str) -> None:
        """Keep something that the program writes."""
        if self._echo is not None:
            *lines, rest = (self._line + text).split("\n")
            self._line = rest[:MAX_CHARACTERS]
            for line in lines:
                self._show(line)
        if self._characters > MAX_CHARACTERS:
            return
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            text = text[: MAX_CHARACTERS - self._characters] + _CUT
        self._parts.append(text)

    def finish(self) -> None:
        """The program has ended: what it wrote last may be no whole line."""
        if self._line:
            self._show(self._line)
            self._line = ""

    def _show(self, line: str) -> None:
        assert self._echo is not None
        token = current_output.set(None)  # what is printed now is not the program's
        try:
            self._echo(self.name, line)
        finally:
            current_output.reset(token)


current_output: ContextVar[ProgramOutput | None] = ContextVar("current_output", default=None)
"""Of the running program; set in the context of each."""


@contextmanager
def capturing() -> Iterator[None]:
    """Keep what programs print and log, from level INFO on, with them."""
    netqasm = get_netqasm_logger()
    others = logging.getLogger()
    before = netqasm.level, list(netqasm.handlers), list(others.handlers)
    others_from = netqasm.getEffectiveLevel()
    if others_from > logging.INFO:
        netqasm.setLevel(logging.INFO)
    netqasm.handlers = [_Router(before[1], others_from)]
    others.handlers = [_Router(before[2], logging.NOTSET)]
    try:
        with redirect_stdout(_Stream(sys.stdout)):
            yield
    finally:
        netqasm.level, netqasm.handlers, others.handlers = before


class _Router(logging.Handler):
    """Gives records of programs to their output, and others to the handlers there were."""

    def __init__(self, handlers: list[logging.Handler], others_from: int) -> None:
        super().__init__()
        self._handlers = handlers
        self._others_from = others_from
        self.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        output = current_output.get()
        if output is not None:
            output.write(self.format(record) + "\n")
        elif record.levelno >= self._others_from:
            for handler in self._handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)


class _Stream(TextIOBase):
    """Standard output that gives what programs print to their output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        output = current_output.get()
        if output is None:
            return self._stream.write(text)
        output.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
