"""The simulated data server: an object with the methods of the vendor's `ziDAQServer`.

Give it to zhinst-toolkit's `Session` or zhinst-qcodes' `ZISession` as `connection=`. It has
the methods those two call; errors are the vendor's classes, as clients catch them.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from zhinst.core import __version__ as zhinst_version
from zhinst.core.errors import CoreError, DeviceNotFoundError, NotFoundError

from sim.hdawg.device import SimulatedHdawg
from sim.hdawg.families import SERVER_NODES
from sim.hdawg.nodes import Node, NodeTree, NodeType

MAX_EVENTS: Final = 100_000
"""Changes of subscribed nodes kept until the next `poll`."""

_numbers = itertools.count()


class SimulatedDataServer:
    """Serves simulated instruments.

    Attributes:
        host: a name no other simulated server has.
        port: that of a real one.

    Args:
        devices: the instruments it sees.
    """

    port = 8004

    def __init__(self, devices: Iterable[SimulatedHdawg]) -> None:
        self.host = f"simulated-{os.getpid()}-{next(_numbers)}"
        self._devices = {device.serial: device for device in devices}
        self._connected: list[str] = []
        self._subscribed: set[str] = set()
        self._events: dict[str, list[Any]] = {}
        self._n_events = 0
        # The driver refuses a server whose version is not that of its own library.
        version = ".".join(str(int(part)) for part in zhinst_version.split("."))
        self._server_nodes = NodeTree(SERVER_NODES)
        self._server_nodes.put("/zi/about/fullversion", version)
        self._server_nodes.put("/zi/about/version", ".".join(zhinst_version.split(".")[:2]))
        self._server_nodes.on_read("/zi/devices", self._discovered)
        self._server_nodes.on_read("/zi/devices/visible", lambda: ",".join(self._devices).upper())
        self._server_nodes.on_read(
            "/zi/devices/connected", lambda: ",".join(self._connected).upper()
        )

    def _discovered(self) -> str:
        return json.dumps(
            {serial.upper(): device.discovery() for serial, device in self._devices.items()}
        )

    # --- connections ------------------------------------------------------------------

    def connectDevice(self, dev: str, interface: str, params: str = "") -> None:
        """Connect an instrument.

        Raises:
            DeviceNotFoundError: there is none of that serial.
        """
        serial = dev.lower()
        if serial not in self._devices:
            raise DeviceNotFoundError(
                f"no {dev} at {self.host}; there are {', '.join(self._devices) or 'none'}"
            )
        if serial not in self._connected:
            self._connected.append(serial)

    def disconnectDevice(self, dev: str) -> None:
        """Disconnect an instrument, if it is connected."""
        if dev.lower() in self._connected:
            self._connected.remove(dev.lower())

    # --- listing and reading ----------------------------------------------------------

    def listNodesJSON(self, path: str, **flags: Any) -> str:
        """JSON text that describes the nodes a pattern stands for."""
        return json.dumps(
            {node.path: node.as_document() for node, _ in self._match(path) if node.is_listed}
        )

    def get(
        self,
        paths: str,
        *,
        flat: bool = False,
        settingsonly: bool = True,
        excludestreaming: bool = False,
        excludevectors: bool = False,
    ) -> dict[str, Any]:
        """Values of all readable nodes that match, by path."""
        values: dict[str, Any] = {}
        for path in paths.split(","):
            matched = list(self._match(path))
            for node, tree in matched:
                is_wanted = "Setting" in node.properties or not settingsonly or len(matched) == 1
                if is_wanted and not (excludevectors and node.type is NodeType.VECTOR):
                    values[node.path] = self._event(node, tree)
        return values if flat else _nested(values)

    def getInt(self, path: str) -> int:
        """An integer node."""
        return int(self._value(path))

    def getDouble(self, path: str) -> float:
        """A floating-point node."""
        return float(self._value(path))

    def getString(self, path: str) -> str:
        """A text node."""
        return str(self._value(path))

    # --- writing ----------------------------------------------------------------------

    def set(self, path_or_items: str | Iterable[tuple[str, Any]], value: Any = None) -> None:
        """Write one node or pattern, or several in order."""
        items = [(path_or_items, value)] if isinstance(path_or_items, str) else path_or_items
        for path, item in items:
            self._write(path, item)

    def setVector(self, path: str, value: Any) -> None:
        """Write a vector node."""
        self._write(path, value)

    def syncSetInt(self, path: str, value: int) -> int:
        """Write an integer node; what the instrument made of it."""
        self._write(path, int(value))
        return self.getInt(path)

    def syncSetDouble(self, path: str, value: float) -> float:
        """Write a floating-point node; what the instrument made of it."""
        self._write(path, float(value))
        return self.getDouble(path)

    def syncSetString(self, path: str, value: str) -> str:
        """Write a text node or keyword; what the instrument made of it."""
        self._write(path, value)
        return self.getString(path)

    # --- events -----------------------------------------------------------------------

    def sync(self) -> None:
        """Forget the events so far; every write has taken effect already."""
        self._events, self._n_events = {}, 0

    def subscribe(self, path: str) -> None:
        """Keep changes of a node for `poll`."""
        self._subscribed.update(node.path for node, _ in self._match(path))

    def unsubscribe(self, path: str) -> None:
        """Keep them no longer."""
        self._subscribed.difference_update([node.path for node, _ in self._match(path)])

    def poll(
        self,
        recording_time_s: float = 0.1,
        timeout_ms: int = 500,
        flags: int = 0,
        flat: bool = False,
    ) -> dict[str, Any]:
        """Changes since the last call, at once: simulated time does not pass meanwhile."""
        events, self._events, self._n_events = self._events, {}, 0
        polled = {path: _merged(items) for path, items in events.items()}
        return polled if flat else _nested(polled)

    # --- inside -----------------------------------------------------------------------

    def _trees(self, path: str) -> Iterator[tuple[str, NodeTree]]:
        # zhinst-qcodes asks for "dev8001/*", without a leading slash.
        path = "/" + path.lower().lstrip("/")
        top = path.split("/")[1]
        if top == "zi":
            yield path, self._server_nodes
        elif top == "*":
            yield path, self._server_nodes
            yield from ((path, self._devices[serial].nodes) for serial in self._connected)
        elif top in self._connected:
            self._devices[top].provide(path)
            yield path, self._devices[top].nodes
        else:
            raise NotFoundError(f"{path}: {top} is not connected to {self.host}")

    def _match(self, path: str) -> Iterator[tuple[Node, NodeTree]]:
        for part in path.split(","):
            for pattern, tree in self._trees(part):
                yield from ((node, tree) for node in tree.match(pattern))

    def _value(self, path: str) -> Any:
        for full_path, tree in self._trees(path):
            return tree.read(full_path)
        raise NotFoundError(f"no node {path}")

    def _write(self, path: str, value: Any) -> None:
        matched = list(self._match(path))
        if not matched:
            raise NotFoundError(f"no node matches {path}")
        for node, tree in matched:
            # A pattern means those that can be written; a node that cannot is an error.
            if len(matched) == 1 or "Write" in node.properties:
                tree.write(node.path, value)
                self._notify(node, tree)

    def _notify(self, node: Node, tree: NodeTree) -> None:
        if node.path in self._subscribed:
            self._n_events += 1
            if self._n_events > MAX_EVENTS:
                raise CoreError(f"{MAX_EVENTS} changes are waiting to be polled")
            self._events.setdefault(node.path, []).append(self._event(node, tree))

    def _event(self, node: Node, tree: NodeTree) -> Any:
        value = tree.read(node.path)
        if node.type is NodeType.VECTOR:
            return [{"timestamp": 0, "flags": 0, "vector": value}]
        timestamps = np.zeros(1, np.uint64)
        if node.type is NodeType.STRING:
            return {"timestamp": timestamps, "value": [value]}
        kind = np.float64 if node.type is NodeType.DOUBLE else np.int64
        return {"timestamp": timestamps, "value": np.array([value], kind)}


def _merged(items: list[Any]) -> Any:
    if isinstance(items[0], list):
        return [vector for item in items for vector in item]
    return {
        key: np.concatenate([np.asarray(item[key]) for item in items])
        for key in ("timestamp", "value")
    }


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in values.items():
        *parents, leaf = path.strip("/").split("/")
        level = root
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    return root
