"""Which subroutine of the QNPU is which of a program on the CNPU.

The two keep their own numbers: a CNPU numbers its programs, a QNPU its processes. What both
know is the order in which the subroutines of one connection were sent, and when.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

from qnodeos.trace.host_spans import HostSubroutine
from qnodeos.trace.qnpu_spans import QnpuSubroutine


def match_subroutines(
    sent: Sequence[HostSubroutine],
    added: Sequence[QnpuSubroutine],
    tick_ns: int,
    *,
    by_serial: bool,
) -> list[tuple[HostSubroutine, QnpuSubroutine]]:
    """Match subroutines sent by programs with those added to processes of the same node.

    A process belongs to one program, that which sent its first subroutine. A subroutine is
    added within its program's wait for it: not before it was sent (but for the rounding of a
    tick), and not after its result.

    Args:
        sent: by all programs, in the order of time.
        added: to all processes, in the order of time.
        tick_ns: resolution of the times of ``added``.
        by_serial: whether programs and serials are known; if not, only the order counts.
    """
    queues: dict[int, deque[QnpuSubroutine]] = defaultdict(deque)
    for subroutine in added:
        queues[subroutine.pid if by_serial else 0].append(subroutine)
    unowned = dict.fromkeys(queues)
    owned: dict[int, list[int]] = defaultdict(list)
    matched: list[tuple[HostSubroutine, QnpuSubroutine]] = []
    for each in sent:

        def fits(pid: int, each: HostSubroutine = each) -> bool:
            queue = queues[pid]
            while queue and queue[0].added_ns < each.sent_ns - tick_ns:
                queue.popleft()
            return (
                bool(queue)
                and (not by_serial or queue[0].serial == each.serial)
                and (each.result_ns is None or queue[0].added_ns <= each.result_ns)
            )

        mine = owned[each.program if by_serial else 0]
        pid = next(filter(fits, mine), None)
        if pid is None:
            pid = next(filter(fits, unowned), None)
            if pid is None:
                continue
            del unowned[pid]
            mine.append(pid)
        matched.append((each, queues[pid].popleft()))
    return matched
