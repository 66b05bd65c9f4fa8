"""What a QNPU tells of itself, as tables for people: for `qnodeos ps` and `qnodeos top`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qnodeos.api.host_wire import ProcessInfo
from qnodeos.service.operator import Snapshot

_NS_PER_US: Final = 1_000
_NS_PER_S: Final = 1_000_000_000
_NAME_MAX: Final = 12
_STATE_COLOURS: Final = {"running": "green", "ready": "cyan", "waiting": "yellow"}


def process_table(processes: Sequence[ProcessInfo]) -> Table:
    """The processes, one a line.

    `queued` counts subroutines that wait, `running` is the number of the one that has begun,
    `wants` counts entanglement requests.
    """
    table = Table(box=SIMPLE_HEAD)
    for column in ("pid", "client", "app", "state"):
        # Only the name of a client is long: where there is no room, it takes a second line.
        table.add_column(column, no_wrap=column != "client", overflow="fold")
    for column in ("prio", "queued", "running", "qubits", "wants"):
        table.add_column(column, justify="right", no_wrap=True)
    for info in processes:
        is_kernel = info.client < 0
        table.add_row(
            str(info.pid),
            Text("kernel" if is_kernel else _client(info)),
            "network" if is_kernel else str(info.app_id),
            Text(info.state, _STATE_COLOURS.get(info.state, "")),
            str(info.priority),
            str(info.pending),
            "" if info.current is None else str(info.current),
            ",".join(map(str, info.qubits)),
            str(info.requests),
        )
    return table


def _client(info: ProcessInfo) -> str:
    """Number and name of a connection; the name is anybody's, so not as it came."""
    name = "".join(c if c.isascii() and c.isprintable() else "?" for c in info.client_name)
    return f"{info.client} {name[:_NAME_MAX]}".rstrip()


def process_dicts(processes: Sequence[ProcessInfo]) -> list[dict[str, Any]]:
    """The processes as plain values."""
    return [
        {**{name: getattr(info, name) for name in info.__struct_fields__}, "qubits": [*info.qubits]}
        for info in processes
    ]


def overview(now: Snapshot, before: Snapshot | None) -> RenderableType:
    """Everything at a glance.

    Args:
        now: the latest snapshot.
        before: an earlier one of the same start of the QNPU, for rates; None for none.
    """
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, text in (
        ("node", _node(now)),
        ("device", _text(now, "service", "device")),
        ("scheduler", _text(now, "service", "scheduler")),
        ("real time", _text(now, "realtime", "summary").removeprefix("real time: ")),
        ("ticks", _ticks(now, before)),
        ("lateness", _lateness(now)),
        ("faults", _faults(now)),
        ("subroutines", _subroutines(now, before)),
        ("entanglement", _entanglement(now, before)),
        ("clients", _clients(now, before)),
        *_neighbours(now),
    ):
        if text:
            table.add_row(name, Text(text))
    return Group(table, process_table(now.processes))


def rate(now: Snapshot, before: Snapshot | None, group: str, name: str) -> float | None:
    """How fast a counter grows, per second; None if that is not known."""
    if before is None or now.time_s <= before.time_s:
        return None
    new, old = now.number(group, name), before.number(group, name)
    if new is None or old is None or new < old:  # it has started anew
        return None
    return (new - old) / (now.time_s - before.time_s)


def _text(now: Snapshot, group: str, name: str) -> str:
    value = now.groups.get(group, {}).get(name, "")
    return str(value)


def _count(now: Snapshot, group: str, name: str) -> str:
    value = now.number(group, name)
    return "?" if value is None else f"{value:.0f}"


def _with_rate(now: Snapshot, before: Snapshot | None, group: str, name: str) -> str:
    """A counter, and how fast it grows."""
    text = _count(now, group, name)
    per_second = rate(now, before, group, name)
    return text if per_second is None else f"{text} ({per_second:.0f}/s)"


def _node(now: Snapshot) -> str:
    uptime_ns = now.number("service", "uptime_ns") or 0
    return (
        f"{now.node}, qnodeos {_text(now, 'service', 'version')}, process "
        f"{_count(now, 'service', 'pid')}, up {_duration(uptime_ns / _NS_PER_S)}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _ticks(now: Snapshot, before: Snapshot | None) -> str:
    engine = now.groups.get("engine")
    if engine is None:
        return ""
    ticks, skipped = now.number("engine", "ticks"), now.number("engine", "skipped")
    parts = [
        f"{engine.get('mode')} over {engine.get('link')}",
        "native" if engine.get("is_native") else "pure Python",
        f"{_with_rate(now, before, 'engine', 'ticks')} exchanged",
    ]
    if ticks is not None and skipped is not None:
        due = ticks + skipped
        share = (
            f" ({100 * skipped / due:.2g} %)" if due and engine.get("mode") == "spinning" else ""
        )
        parts.append(f"{skipped:.0f} skipped{share}")
    return ", ".join(parts)


def _lateness(now: Snapshot) -> str:
    engine = now.groups.get("engine", {})
    parts = []
    lateness, reaction = engine.get("lateness_ns"), engine.get("reaction_ticks")
    if isinstance(lateness, dict) and lateness.get("total"):
        parts.append(
            "p50/p99/p99.9/max "
            + "/".join(_microseconds(lateness[q]) for q in ("p50", "p99", "p999", "max"))
            + " us"
        )
    if isinstance(reaction, dict) and reaction.get("total"):
        parts.append(f"reaction p50/p99 {reaction['p50']}/{reaction['p99']} ticks")
    return ", ".join(parts)


def _microseconds(time_ns: float) -> str:
    """Three digits or all of them, and no exponent."""
    time_us = time_ns / _NS_PER_US
    return f"{time_us:.0f}" if time_us >= 100 else f"{time_us:.3g}"


def _faults(now: Snapshot) -> str:
    """Counters that are better zero, if they are not."""
    names = (
        ("stalls", "stalls"),
        ("given_up", "instructions given up"),
        ("corrupted_frames", "frames corrupted"),
        ("device_restarts", "restarts of the device"),
        ("link_errors", "errors of the link"),
    )
    return ", ".join(
        f"{_count(now, 'engine', name)} {words}"
        for name, words in names
        if now.number("engine", name)
    )


def _subroutines(now: Snapshot, before: Snapshot | None) -> str:
    if "kernel" not in now.groups:
        return ""
    return (
        f"{_with_rate(now, before, 'kernel', 'subroutines_done')} done, "
        f"{_count(now, 'kernel', 'subroutines_failed')} failed, "
        f"{sum(info.pending for info in now.processes)} queued; physical instructions "
        f"{_with_rate(now, before, 'kernel', 'physical_instructions')}; "
        f"{_count(now, 'kernel', 'free_qubits')} qubits free"
    )


def _entanglement(now: Snapshot, before: Snapshot | None) -> str:
    kernel = now.groups.get("kernel")
    if kernel is None:
        return ""
    pairs = kernel.get("pairs") or {}
    waiting = kernel.get("link_requests") or {}
    text = (
        f"bins used {_with_rate(now, before, 'kernel', 'bins_used')}, missed "
        f"{_count(now, 'kernel', 'bins_missed')}, blocked "
        f"{_count(now, 'kernel', 'bins_blocked')}"
    )
    for peer in sorted({*pairs, *waiting}, key=str):
        text += f"; node {peer}: {pairs.get(peer, 0)} pairs, {waiting.get(peer, 0)} requests wait"
    if kernel.get("swaps") or kernel.get("circuits"):
        text += (
            f"; swaps {_with_rate(now, before, 'kernel', 'swaps')}, "
            f"{_count(now, 'kernel', 'circuits')} circuits under way"
        )
    return text


def _clients(now: Snapshot, before: Snapshot | None) -> str:
    return (
        f"{_count(now, 'service', 'connections')} connected, "
        f"{_count(now, 'service', 'open_requests')} requests open, "
        f"{_with_rate(now, before, 'service', 'requests')} taken, refused "
        f"{_count(now, 'service', 'refused_requests')}"
    )


def _neighbours(now: Snapshot) -> Iterator[tuple[str, str]]:
    for name, facts in now.groups.get("peers", {}).get("neighbours", {}).items():
        state = "connected" if facts.get("connected") else "not connected"
        error = facts.get("last_error")
        yield f"peer {name}", f"{state} ({error})" if error and state != "connected" else state
