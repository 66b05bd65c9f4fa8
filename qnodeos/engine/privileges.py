"""What keeps a tick thread from its time, in words for a report."""

from __future__ import annotations

from pathlib import Path
from typing import Final

RT_RUNTIME: Final = Path("/proc/sys/kernel/sched_rt_runtime_us")
RT_PERIOD: Final = Path("/proc/sys/kernel/sched_rt_period_us")
ISOLATED: Final = Path("/sys/devices/system/cpu/isolated")

SHARE_PERIOD_NS: Final = 250_000_000
"""As in csrc/engine.c."""
MARGIN_NS: Final = 1_000_000
"""Above what is asked for, because the kernel counts from tick to tick (assumed)."""


def realtime_warnings(wanted: int, priority: int, core: int | None) -> tuple[str, ...]:
    """Sentences on a spinning tick thread.

    Args:
        wanted: priority it was to have.
        priority: what it has.
        core: it is pinned to.
    """
    warnings = []
    if wanted and not priority:
        warnings.append(
            "the tick thread has no real-time priority, because this process may not ask for one; "
            "give it CAP_SYS_NICE, or a limit on rtprio of at least the priority; if it has one, "
            "its control group has no real-time budget (cpu.rt_runtime_us)"
        )
    share_ns = ordinary_share_ns() if priority else 0
    if share_ns:
        warnings.append(
            "the system limits real-time threads (sched_rt_runtime_us), so the tick thread is an "
            f"ordinary one for {share_ns / 1e6:g} ms in every 250 ms; set the limit to -1"
        )
    if core is None:
        warnings.append(
            "the tick thread is not pinned to a core; name one that is kept free of other work"
        )
    elif not _is_isolated(core):
        warnings.append(
            f"core {core} is not isolated: whatever else is to run there delays ticks (kernel "
            "parameter isolcpus)"
        )
    return tuple(warnings)


def ordinary_share_ns() -> int:
    """How much of every 250 ms a thread must not be real-time, not to be stopped; 0 for none.

    Linux stops real-time threads that use more than ``sched_rt_runtime_us`` in every
    ``sched_rt_period_us``, until the period ends.
    """
    runtime_us, period_us = _number(RT_RUNTIME), _number(RT_PERIOD)
    if runtime_us is None or period_us is None or runtime_us < 0 or runtime_us >= period_us:
        return 0
    return int(SHARE_PERIOD_NS * (1 - runtime_us / period_us)) + MARGIN_NS


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _is_isolated(core: int) -> bool:
    try:
        ranges = ISOLATED.read_text("ascii").strip()
    except OSError:
        return False
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        if int(first) <= core <= int(last or first):
            return True
    return False
