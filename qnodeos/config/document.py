"""From YAML text to plain data that remembers its lines.

The accepted language is YAML 1.2 (so JSON too) less what a configuration file does not
need and an attacker or a typing error may use: anchors and aliases (a few lines can stand
for gigabytes), tags (they name types to construct), several documents, and duplicate
keys. The document is built from the parser's events with an explicit stack, so that depth
and size are bounded while reading and the line of every node is known.

Keys are text, as in JSON: `1` and `"1"` are the same key. Dates and merge keys, which
belong to YAML 1.1, are text too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.reader import ReaderError

from qnodeos.errors import ConfigurationError

MAX_BYTES: Final = 1 << 20
"""Largest text accepted, in bytes."""
MAX_DEPTH: Final = 32
"""Deepest nesting of mappings and lists."""
MAX_NODES: Final = 50_000
"""Most keys and values in one document; the parser takes about 50 us for each."""
MAX_NUMBER_LENGTH: Final = 64
"""Most characters in one number."""

Path = tuple[str | int, ...]
"""Where a value is: keys and list indices from the top."""

_VALUE_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")
)


@dataclass(frozen=True)
class Document:
    """A parsed document.

    Attributes:
        name: file name, for messages.
        data: None, a scalar, or lists and dictionaries with text keys.
        lines: line, counted from 1, of the value (for a value in a mapping: of its key)
            at each path.
    """

    name: str
    data: Any
    lines: dict[Path, int]


def parse_document(text: str, name: str) -> Document:
    """Parse YAML 1.2 or JSON text.

    Args:
        text: the whole text, at most MAX_BYTES characters.
        name: file name, for messages.

    Raises:
        ConfigurationError: the text is not YAML, or uses what this module refuses.
    """
    if len(text) > MAX_BYTES:
        raise too_large(name)
    builder = _Builder(name, YAML(typ="safe", pure=True))
    for event in _events(text, builder):
        builder.take(event)
    return Document(name, builder.root, builder.lines)


def too_large(name: str) -> ConfigurationError:
    """The error for a text of more than MAX_BYTES."""
    return ConfigurationError(
        f"larger than {MAX_BYTES} bytes, the most a configuration file may have; is this the "
        "right file?",
        file=name,
    )


@dataclass
class _Frame:
    """A mapping or list that is still open."""

    container: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


@dataclass
class _Builder:
    """Builds plain data from parser events."""

    name: str
    yaml: YAML
    root: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    nodes: int = 0
    documents: int = 0
    stack: list[_Frame] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Take the next event of the parser."""
        if isinstance(event, NodeEvent):
            self._take_node(event)
        elif isinstance(event, CollectionEndEvent):
            self.stack.pop()
        elif isinstance(event, DocumentStartEvent):
            self._start_document(event)

    def _start_document(self, event: DocumentStartEvent) -> None:
        self.documents += 1
        if self.documents > 1:
            raise self.refusal(event, "a second document starts here; write one document per file")
        if event.version not in {None, (1, 2)}:
            raise self.refusal(event, "only YAML 1.2 is read; remove the %YAML line")

    def _take_node(self, event: NodeEvent) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.refusal(event, f"more than {MAX_NODES} keys and values; shorten the file")
        if isinstance(event, AliasEvent) or event.anchor is not None:
            raise self.refusal(event, "anchors and aliases (& and *) are not read; write it out")
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
            raise self.refusal(
                event, "tags (!) are not read; remove the tag, or put quotes around the text"
            )
        frame = self.stack[-1] if self.stack else None
        if frame is not None and isinstance(frame.container, dict) and frame.key is None:
            self._take_key(event, frame)
        else:
            self._take_value(event, frame)

    def _take_key(self, event: NodeEvent, frame: _Frame) -> None:
        if not isinstance(event, ScalarEvent):
            raise self.refusal(event, "a key must be a name, not a list or mapping")
        key = self._text(event)
        path = (*frame.path, key)
        if path in self.lines:
            raise self.refusal(
                event,
                f"duplicate key; it was given on line {self.lines[path]} already; remove one",
                path,
            )
        self.lines[path] = event.start_mark.line + 1
        frame.key = key

    def _take_value(self, event: NodeEvent, frame: _Frame | None) -> None:
        path: Path = ()
        if frame is None:
            self.lines[path] = event.start_mark.line + 1
        elif isinstance(frame.container, list):
            path = (*frame.path, len(frame.container))
            self.lines[path] = event.start_mark.line + 1
        else:
            assert frame.key is not None
            path = (*frame.path, frame.key)
        value = self._value(event, path)
        if frame is None:
            self.root = value
        elif isinstance(frame.container, list):
            frame.container.append(value)
        else:
            frame.container[str(path[-1])] = value
            frame.key = None

    def _value(self, event: NodeEvent, path: Path) -> Any:
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if len(self.stack) == MAX_DEPTH:
            raise self.refusal(event, f"nested deeper than {MAX_DEPTH} levels; flatten it", path)
        container: dict[str, Any] | list[Any] = {} if isinstance(event, MappingStartEvent) else []
        self.stack.append(_Frame(container, path))
        return container

    def _scalar(self, event: ScalarEvent) -> Any:
        tag = self.yaml.resolver.resolve(ScalarNode, event.value, event.implicit)
        if str(tag) not in _VALUE_TAGS:
            return self._text(event)
        if len(event.value) > MAX_NUMBER_LENGTH:
            raise self.refusal(
                event, f"a number of more than {MAX_NUMBER_LENGTH} characters; shorten it"
            )
        try:
            return self.yaml.constructor.construct_object(ScalarNode(tag, event.value))
        except ValueError:  # `-_` and `0x_` look like numbers to the resolver only
            return self._text(event)

    def _text(self, event: ScalarEvent) -> str:
        # JSON writes a character beyond U+FFFF as two escapes, a surrogate pair, which the
        # parser leaves as two characters.
        try:
            return str(event.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self.refusal(
                event, "an escape stands for half a character (a lone surrogate); correct it"
            ) from None

    def refusal(self, event: Event, message: str, path: Path = ()) -> ConfigurationError:
        """The error for what cannot be accepted, at an event."""
        return ConfigurationError(
            message,
            file=self.name,
            line=event.start_mark.line + 1,
            field=dotted(path) or None,
        )


def dotted(path: Path) -> str:
    """A path as people write it, e.g. `links[0].visibility`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part or repr(part)}" for part in path]
    return "".join(parts).removeprefix(".")[:200]


def _events(text: str, builder: _Builder) -> Iterator[Event]:
    """The parser's events; its errors become ConfigurationError."""
    name = builder.name
    try:
        yield from builder.yaml.parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigurationError(
            f"not valid YAML: {what[:200]}; correct the syntax on or above this line",
            file=name,
            line=None if mark is None else mark.line + 1,
        ) from error
    except ReaderError as error:
        raise ConfigurationError(
            "contains a control character, which YAML does not allow; remove it",
            file=name,
            line=text.count("\n", 0, error.position) + 1,
        ) from error
    except YAMLError as error:
        raise ConfigurationError(f"not valid YAML: {str(error)[:200]}", file=name) from error
