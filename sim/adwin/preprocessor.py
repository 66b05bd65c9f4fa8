"""The first pass over an ADbasic source: header, comments, directives, macros.

The result is one text for the parser with a line for every line of the sources, and the place
each came from. ``#DEFINE`` is textual, as a C macro without arguments: the tokens of the value
take the place of the name (assumed). A file that is included twice counts once (assumed).
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sim.adwin.errors import AdbasicError, Location

MAX_FILE_BYTES: Final = 1_000_000
MAX_LINES: Final = 50_000
"""Bound on the lines of a source with everything it includes."""
MAX_LINE_LENGTH: Final = 4_000
"""Bound on a line after its macros are expanded."""
MAX_INCLUDE_DEPTH: Final = 16
MAX_DEFINES: Final = 5_000

VENDOR_INCLUDES: Final = frozenset({"adwinpro_all.inc", "adwinpro.inc", "math.inc"})
"""Includes that come with the vendor's compiler; what they declare is built in here."""

_TOKEN: Final = re.compile(r'"[^"]*"|\d[\w.]*|[A-Za-z_]\w*|\s+|.')
_DIRECTIVE: Final = re.compile(r"\s*#\s*(\w+)\s*(.*)$")
_HEADER: Final = re.compile(r"'\s*(\w+)\s*=\s*(\S.*?)\s*$")
_CONDITION: Final = re.compile(r"\(?\s*(\w+)\s*(=|<>)\s*(\w+)\s*\)?$")
_TESTS: Final = {"=": operator.eq, "<>": operator.ne}
_SYSTEMS: Final = frozenset({"adwin_pro", "adwin_proii"})


@dataclass
class SourceText:
    """A source after the first pass.

    Attributes:
        text: what the parser reads; line i (from 0) came from ``locations[i]``.
        locations: place of every line.
        header: settings of the first file's header, names in lower case.
    """

    text: str
    locations: tuple[Location, ...]
    header: dict[str, str]


def preprocess(path: Path, processor: str) -> SourceText:
    """Read a source and everything it includes.

    Args:
        path: the ``.bas`` file.
        processor: what the symbol PROCESSOR stands for in ``#IF``, for instance "T11".

    Raises:
        AdbasicError: a file is missing or too large, or a directive is wrong.
    """
    state = _Preprocessor(processor.lower().replace(".", ""))
    state.read(path, None, 0)
    text = "".join(f"{line}\n" for line in state.lines)
    return SourceText(text, tuple(state.locations), state.header)


@dataclass
class _Preprocessor:
    processor: str
    defines: dict[str, str] = field(default_factory=dict)
    included: set[Path] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    locations: list[Location] = field(default_factory=list)
    header: dict[str, str] = field(default_factory=dict)

    def read(self, path: Path, where: Location | None, depth: int) -> None:
        conditions: list[bool] = []
        opened: list[Location] = []
        for number, raw in enumerate(_read_lines(path, where), 1):
            here = Location(path.name if where else str(path), number, raw)
            if depth == 0 and (setting := _HEADER.match(raw)):
                self.header.setdefault(setting[1].lower(), setting[2])
            line = _without_comment(raw)
            directive = _DIRECTIVE.match(line)
            if directive is None:
                self._keep(self._expand(line, here) if all(conditions) else "", here)
                continue
            self._keep("", here)
            word, rest = directive[1].lower(), directive[2].strip()
            if word == "if":
                conditions.append(all(conditions) and self._condition(rest, here))
                opened.append(here)
            elif word in ("else", "endif"):
                if not conditions:
                    raise AdbasicError(f"#{word.upper()} without #IF", here)
                if word == "endif":
                    conditions.pop()
                    opened.pop()
                else:
                    conditions[-1] = all(conditions[:-1]) and not conditions[-1]
            elif all(conditions):
                self._directive(word, rest, here, path, depth)
        if opened:
            raise AdbasicError("this #IF has no #ENDIF", opened[-1])

    def _directive(self, word: str, rest: str, here: Location, path: Path, depth: int) -> None:
        if word == "define":
            name, _, value = rest.partition(" ")
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise AdbasicError(f"#DEFINE needs a name, not {name!r}", here)
            known = self.defines.setdefault(name.lower(), value.strip())
            if known != value.strip():
                raise AdbasicError(f"{name} is defined already, as {known!r}; rename one", here)
            if len(self.defines) > MAX_DEFINES:
                raise AdbasicError(f"more than {MAX_DEFINES} names are defined", here)
        elif word == "include":
            self._include(rest.strip('"<>').replace("\\", "/"), here, path, depth)
        else:
            raise AdbasicError(f"#{word.upper()} is not a directive of this subset", here)

    def _include(self, name: str, here: Location, path: Path, depth: int) -> None:
        if Path(name).name.lower() in VENDOR_INCLUDES:
            return
        if depth == MAX_INCLUDE_DEPTH:
            raise AdbasicError(f"includes are nested more than {MAX_INCLUDE_DEPTH} deep", here)
        found = _find(path.parent, Path(name).parts)
        if found is None:
            raise AdbasicError(
                f"include file {name!r} is not to be found from {path.parent}; put it there or "
                "correct the name",
                here,
            )
        target = found.resolve()
        if target not in self.included:
            self.included.add(target)
            self.read(found, here, depth + 1)

    def _condition(self, rest: str, here: Location) -> bool:
        test = _CONDITION.match(re.sub(r"\bthen\s*$", "", rest, flags=re.IGNORECASE).strip())
        if test is None:
            raise AdbasicError("#IF can only compare two names or numbers with = or <>", here)
        left, right = (self._symbol(test[part]) for part in (1, 3))
        return bool(_TESTS[test[2]](left, right))

    def _symbol(self, name: str) -> str:
        symbol = self.defines.get(name.lower(), name).lower()
        if symbol == "processor":
            return self.processor
        return "adwin_system" if symbol in _SYSTEMS else symbol

    def _expand(self, line: str, here: Location) -> str:
        """Replace defined names until none is left."""
        return "".join(self._tokens(line, (), here))

    def _tokens(self, line: str, active: tuple[str, ...], here: Location) -> list[str]:
        expanded: list[str] = []
        length = 0
        for token in _TOKEN.findall(line):
            name = token.lower()
            if name in self.defines and name not in active:
                parts = self._tokens(self.defines[name], (*active, name), here)
            else:
                parts = [token]
            expanded += parts
            length += sum(map(len, parts))
            if length > MAX_LINE_LENGTH:
                raise AdbasicError(f"longer than {MAX_LINE_LENGTH} characters with macros", here)
        return expanded

    def _keep(self, line: str, here: Location) -> None:
        if len(self.lines) == MAX_LINES:
            raise AdbasicError(f"the source has more than {MAX_LINES} lines", here)
        self.lines.append(line)
        self.locations.append(here)


def _read_lines(path: Path, where: Location | None) -> list[str]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AdbasicError(f"{path} is larger than {MAX_FILE_BYTES} bytes", where)
        # Every byte is a character in Latin-1; only comments have any beyond ASCII.
        return path.read_text("latin-1").splitlines()
    except OSError as error:
        raise AdbasicError(f"cannot read {path}: {error.strerror}", where) from None


def _find(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """A file by its path whatever the case, as on Windows, where the sources are written."""
    for part in parts:
        if part == "..":
            folder = folder.parent
            continue
        beside = sorted(folder.iterdir()) if folder.is_dir() else []
        matches = [entry for entry in beside if entry.name.lower() == part.lower()]
        if not matches:
            return None
        folder = matches[0]
    return folder if folder.is_file() else None


def _without_comment(line: str) -> str:
    if re.match(r"\s*rem\b", line, re.IGNORECASE):
        return ""
    quoted = False
    for position, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        elif character == "'" and not quoted:
            return line[:position]
    return line
