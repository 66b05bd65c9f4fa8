"""What keeps a tick thread from its time, in words for a report."""

from __future__ import annotations

from pathlib import Path
from typing import Final

RT_RUNTIME: Final = Path("/proc/sys/kernel/sched_rt_runtime_us")
RT_PERIOD: Final = Path("/proc/sys/kernel/sched_rt_period_us")
ISOLATED: Final = Path("/sys/devices/system/cpu/isolated")


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
            "give it CAP_SYS_NICE, or a limit on rtprio of at least the priority"
        )
    runtime_us, period_us = _number(RT_RUNTIME), _number(RT_PERIOD)
    if priority and runtime_us is not None and period_us is not None and runtime_us >= 0:
        lost_us = period_us - runtime_us
        if lost_us > 0:
            warnings.append(
                f"the system may stop real-time threads for {lost_us / 1000:g} ms in every "
                f"{period_us / 1000:g} ms (sched_rt_runtime_us); set it to -1"
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
