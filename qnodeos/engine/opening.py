"""Which engine for which device: the native one where it was built, and the mode it can hold."""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType
from typing import Final, Literal

from qnodeos.engine.fallback import PythonEngine
from qnodeos.engine.interface import BUSY_LIMIT_NS, Mode, TickEngine
from qnodeos.engine.layout import MAX_TICK_NS, MIN_TICK_NS
from qnodeos.engine.links import MAX_ANSWER_TICKS, Link, LoopbackLink, ShmLink, SpidevLink
from qnodeos.engine.sources import SOURCES, digest_of
from qnodeos.errors import ConfigurationError

DEFAULT_PRIORITY: Final = 80
"""SCHED_FIFO priority of the tick thread: above a policy thread at 50, below the kernel's 99."""
NATIVE_MODULE: Final = "qnodeos.engine._native"

_LOG: Final = logging.getLogger("qnodeos.engine")


def native_module() -> ModuleType | None:
    """The C extension, or None if it was not built, does not load, or is of other sources."""
    try:
        module = importlib.import_module(NATIVE_MODULE)
    except ImportError:
        return None
    return module if _is_current(module) else None


def _is_current(module: ModuleType) -> bool:
    """Whether an extension was built from the sources that lie here, if any do."""
    wanted = digest_of(SOURCES)
    return not wanted or getattr(module, "SOURCE_DIGEST", None) == wanted


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def choose_mode(
    mode: Mode | Literal["auto"], cores: int, spinning_loops: int, tick_core: int | None = None
) -> Mode:
    """The mode to use.

    Args:
        mode: what is wanted; "auto" spins if every spinning loop would have a core of its own,
            and everything else another one, or if a core is named.
        cores: usable ones.
        spinning_loops: how many there would be on this machine: a tick thread and a policy loop
            for each node, and a laboratory's if it is simulated here.
        tick_core: that the tick thread is to be pinned to, if one was named for it.
    """
    if mode != "auto":
        return mode
    return "spinning" if tick_core is not None or cores > spinning_loops else "event-paced"


def open_engine(
    link: Link,
    *,
    mode: Mode | Literal["auto"] = "auto",
    tick_core: int | None = None,
    tick_priority: int = DEFAULT_PRIORITY,
    silence_limit_ticks: int | None = None,
    busy_limit_ticks: int | None = None,
    spinning_loops: int = 2,
    native: bool | None = None,
) -> TickEngine:
    """Open the way to a device. Nothing travels before `TickEngine.start`.

    Args:
        link: what to talk to.
        mode: how to pace frames; see `choose_mode` for "auto".
        tick_core: core to pin the tick thread to (spinning); None leaves it to the system.
        tick_priority: its SCHED_FIFO priority, 1..99; 0 for none. Without the privilege it
            runs without, and says so in the statistics.
        silence_limit_ticks: ticks without a sign of life before an instruction is given up.
            Default: 1000 for a device on a wire, 0.5 s for one that shares our cores.
        busy_limit_ticks: ticks before an instruction is given up although its device is busy;
            default 10 s.
        spinning_loops: see `choose_mode`.
        native: True to insist on the C extension, False to do without.

    Raises:
        ConfigurationError: a value is out of its range, the extension is wanted or needed and
            missing, or there is no core to spin on.
        DeviceError: the device cannot be opened (`ChannelError` for a channel).
    """
    _check(link, tick_core, tick_priority, silence_limit_ticks, busy_limit_ticks)
    module = None if native is False else native_module()
    if module is None and native:
        raise ConfigurationError(
            f"the C extension of the tick engine {_why_not_native()}; install a C compiler and the "
            "headers of Python, then install qnodeos again",
            field="native",
        )
    if module is not None:
        from qnodeos.engine.native import NativeEngine

        return NativeEngine(
            link,
            mode=_mode(mode, usable_cores(), spinning_loops, tick_core),
            tick_core=tick_core,
            tick_priority=tick_priority,
            silence_limit_ticks=silence_limit_ticks,
            busy_limit_ticks=busy_limit_ticks,
        )
    if isinstance(link, SpidevLink):
        raise ConfigurationError(
            "an SPI device needs the C extension of the tick engine; install a C compiler and the "
            "headers of Python, then install qnodeos again",
            field="link",
        )
    why = "was not asked for" if native is False else _why_not_native()
    warning = f"the pure-Python tick engine is in use: the C extension {why}; it paces by events"
    if mode == "spinning":
        warning += ", and cannot spin"
    _LOG.log(logging.INFO if native is False else logging.WARNING, "%s", warning)
    if busy_limit_ticks is None:
        busy_limit_ticks = BUSY_LIMIT_NS // _tick_ns_of(link)
    return PythonEngine(
        link,
        silence_limit_ticks=silence_limit_ticks,
        busy_limit_ticks=busy_limit_ticks,
        warnings=(warning,),
    )


def _why_not_native() -> str:
    try:
        importlib.import_module(NATIVE_MODULE)
    except ImportError:
        return "was not built, or does not load"
    return "was built from other sources (install qnodeos again)"


def _mode(
    wanted: Mode | Literal["auto"], cores: int, spinning_loops: int, tick_core: int | None
) -> Mode:
    mode = choose_mode(wanted, cores, spinning_loops, tick_core)
    if mode == "spinning" and cores < 2:
        raise ConfigurationError(
            "a tick thread that spins on the only core would never let this process do anything "
            "else; give it a second core, or choose the mode event-paced",
            field="mode",
        )
    return mode


def _tick_ns_of(link: LoopbackLink | ShmLink) -> int:
    if isinstance(link, LoopbackLink):
        return link.tick_ns
    from qnodeos.engine.channel import read_channel

    return read_channel(link.path).tick_ns


def _check(
    link: Link,
    tick_core: int | None,
    tick_priority: int,
    silence_limit_ticks: int | None,
    busy_limit_ticks: int | None,
) -> None:
    """Make sure that all numbers are possible.

    Raises:
        ConfigurationError: one is not.
    """
    bounds: list[tuple[str, int | None, int, int]] = [
        ("tick_priority", tick_priority, 0, 99),
        ("silence_limit_ticks", silence_limit_ticks, 2, 1 << 40),
        ("busy_limit_ticks", busy_limit_ticks, 2, 1 << 40),
    ]
    if not isinstance(link, ShmLink):
        bounds.append(("tick_ns", link.tick_ns, MIN_TICK_NS, MAX_TICK_NS))
    if isinstance(link, LoopbackLink):
        bounds.append(("answer_ticks", link.answer_ticks, 0, MAX_ANSWER_TICKS))
    for name, value, least, most in bounds:
        if value is not None and not least <= value <= most:
            raise ConfigurationError(f"{value} is outside {least}..{most}", field=name)
    if tick_core is not None and tick_core not in os.sched_getaffinity(0):
        raise ConfigurationError(
            f"this process may not run on core {tick_core}; it may on "
            f"{', '.join(map(str, sorted(os.sched_getaffinity(0))))}",
            field="tick_core",
        )
