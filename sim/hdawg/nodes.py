"""The node tree of a simulated device: what exists, of which type, and its value.

The tree is generated from a table of node families. Types, properties and keywords are
those of an HDAWG8 (node documentation of LabOne; a test compares them).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from zhinst.core.errors import (
    InvalidArgumentError,
    InvalidKeywordError,
    NotFoundError,
    ReadOnlyError,
)

NodeValue = int | float | str | bytes | NDArray[Any]


class NodeType(Enum):
    """Types as the data server names them."""

    INTEGER = "Integer (64 bit)"
    ENUMERATED = "Integer (enumerated)"
    DOUBLE = "Double"
    STRING = "String"
    VECTOR = "ZIVectorData"


READ: Final = "Read"
WRITE: Final = "Read, Write"
SETTING: Final = "Read, Write, Setting"

_EMPTY: Final[Mapping[NodeType, NodeValue]] = {
    NodeType.INTEGER: 0,
    NodeType.ENUMERATED: 0,
    NodeType.DOUBLE: 0.0,
    NodeType.STRING: "",
    NodeType.VECTOR: "",
}


@dataclass(frozen=True)
class Node:
    """One node, or with `{name}` in its path a family of them.

    Attributes:
        path: lower case; of a family, relative to the device.
        type: of its value.
        properties: `READ`, `WRITE` or `SETTING`.
        unit: as the data server names it.
        keywords: value -> name, of an enumerated node that has names.
        default: None for zero or empty.
        is_listed: False for a node that can be read but is in no listing.
    """

    path: str
    type: NodeType
    properties: str = READ
    unit: str = "None"
    keywords: Mapping[int, str] = field(default_factory=dict)
    default: NodeValue | None = None
    is_listed: bool = True

    def as_document(self) -> dict[str, Any]:
        """What `listNodesJSON` says of it."""
        document: dict[str, Any] = {
            "Node": self.path.upper(),
            "Description": "Simulated.",
            "Properties": self.properties,
            "Type": self.type.value,
            "Unit": self.unit,
        }
        if self.keywords:
            document["Options"] = {
                str(value): f'"{name}": {name.replace("_", " ")}'
                for value, name in self.keywords.items()
            }
        return document


def expand(families: Iterable[Node], counts: Mapping[str, int], prefix: str) -> Iterator[Node]:
    """Every node of some families.

    Args:
        families: with paths such as `sigouts/{channel}/on`.
        counts: how many there are of each name in braces.
        prefix: put before every path.
    """
    for family in families:
        names = re.findall(r"{(\w+)}", family.path)
        for indices in product(*(range(counts[name]) for name in names)):
            path = family.path.format(**dict(zip(names, indices, strict=True)))
            yield Node(
                f"{prefix}{path}",
                family.type,
                family.properties,
                family.unit,
                family.keywords,
                family.default,
                family.is_listed,
            )


class NodeTree:
    """Nodes with their values.

    What an instrument does when a node is written or read is attached with `on_write` and
    `on_read`; everything else is just remembered.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes: dict[str, Node] = {}
        self._values: dict[str, NodeValue] = {}
        self._on_write: dict[str, Callable[[Any], NodeValue]] = {}
        self._on_read: dict[str, Callable[[], NodeValue]] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """Add a node."""
        self._nodes[node.path] = node
        default = _EMPTY[node.type] if node.default is None else node.default
        self._values.setdefault(node.path, default)

    def __contains__(self, path: object) -> bool:
        return path in self._nodes

    def node(self, path: str) -> Node:
        """A node by its path.

        Raises:
            NotFoundError: there is none.
        """
        try:
            return self._nodes[path]
        except KeyError:
            raise NotFoundError(f"no node {path} in the simulated tree") from None

    def on_write(self, path: str, action: Callable[[Any], NodeValue]) -> None:
        """Call an action with every value written; what it returns is stored."""
        self._on_write[self.node(path).path] = action

    def on_read(self, path: str, value: Callable[[], NodeValue]) -> None:
        """Compute a value when it is read."""
        self._on_read[self.node(path).path] = value

    def match(self, pattern: str) -> list[Node]:
        """The nodes that a path, a partial path or one with `*` stands for, in lower case."""
        pattern = pattern.lower().rstrip("/")
        if pattern in self._nodes:
            return [self._nodes[pattern]]
        expression = _compiled(pattern)
        return [node for path, node in self._nodes.items() if expression.match(path)]

    def read(self, path: str) -> NodeValue:
        """The value of a node.

        Raises:
            NotFoundError: there is no such node.
        """
        node = self.node(path)
        compute = self._on_read.get(path)
        return self._values[node.path] if compute is None else compute()

    def put(self, path: str, value: NodeValue) -> None:
        """Store a value as the instrument does, whatever the node's properties."""
        self._values[self.node(path).path] = value

    def write(self, path: str, value: Any) -> NodeValue:
        """Write a value as a client does.

        Returns:
            What the instrument made of it.

        Raises:
            NotFoundError: there is no such node.
            ReadOnlyError: it cannot be written.
            InvalidKeywordError: the node has no such keyword.
            InvalidArgumentError: the value is not of the node's type.
        """
        node = self.node(path)
        if "Write" not in node.properties:
            raise ReadOnlyError(f"{path} is read-only")
        converted = _converted(node, value)
        action = self._on_write.get(path)
        stored = converted if action is None else action(converted)
        self._values[path] = stored
        return stored


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    levels = "/".join(re.escape(level).replace(r"\*", "[^/]*") for level in pattern.split("/"))
    return re.compile(rf"{levels}(?:/|$)")


def _converted(node: Node, value: Any) -> NodeValue:
    if node.type is NodeType.ENUMERATED and isinstance(value, str):
        for number, name in node.keywords.items():
            if name == value:
                return number
        raise InvalidKeywordError(
            f"{node.path} has no keyword {value!r}; known are {', '.join(node.keywords.values())}"
        )
    try:
        if node.type in {NodeType.INTEGER, NodeType.ENUMERATED}:
            number = int(value)
            if node.keywords and number not in node.keywords:
                raise InvalidArgumentError(f"{node.path} cannot be {number}")
            return number
        if node.type is NodeType.DOUBLE:
            return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{node.path} cannot be {value!r}") from error
    if node.type is NodeType.STRING:
        return str(value)
    return value if isinstance(value, str | bytes) else np.asarray(value)
