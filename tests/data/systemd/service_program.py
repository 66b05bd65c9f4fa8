"""A service in place of `qnodeos serve`: supervised, prepared, and answering connections.

Every connection gets a JSON object about the process. One that sends "hang" first stops its
loop, which the watchdog has to notice.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys

from qnodeos.service.notify import Notifier, take_sockets
from qnodeos.service.realtime import RealtimeSettings, prepare_process


def main() -> None:
    """Serve until SIGTERM."""
    sockets = take_sockets()
    core = min(os.sched_getaffinity(0))
    running = True

    def stop(number: int, frame: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    selector = selectors.DefaultSelector()
    for item in sockets:
        selector.register(item.socket, selectors.EVENT_READ)
    settings = RealtimeSettings(policy_core=core, mode="event-paced")
    with Notifier() as notifier, prepare_process(settings) as prepared:
        facts = {
            "pid": os.getpid(),
            "uid": os.getuid(),
            "arguments": sys.argv[1:],
            "names": [item.name for item in sockets],
            "watchdog_ns": notifier.watchdog_interval_ns,
            "is_fifo": os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO,
            "priority": os.sched_getparam(0).sched_priority,
            "core": core,
            "affinity": sorted(os.sched_getaffinity(0)),
            "realtime": prepared.report.as_dict(),
        }
        notifier.ready("serving")
        while running:
            notifier.alive()
            for key, _ in selector.select(timeout=0.1):
                connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
                with connection:
                    connection.settimeout(5)
                    order = connection.recv(16)
                    connection.sendall(json.dumps(facts).encode())
                if order == b"hang":
                    signal.pause()
        notifier.stopping()
    for item in sockets:
        item.socket.close()


main()
