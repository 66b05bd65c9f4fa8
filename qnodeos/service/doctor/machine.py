"""Checks of the machine: each looks at one thing, and returns what it found."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from typing import Final

from qnodeos.service.doctor.findings import Finding, ok, problem, warning
from qnodeos.service.doctor.system import System
from qnodeos.service.realtime import INSTALL_HINT

OLDEST_PYTHON: Final = (3, 11)
REQUIRED: Final = ("qnodeos", "netqasm", "msgspec", "numpy", "pydantic", "greenlet")
"""Distributions without which no service starts."""
OPTIONAL: Final = ("ADwin", "spidev", "zhinst-toolkit", "qcodes", "prometheus_client")
TICK_PRIORITY: Final = 80
"""What is asked for where no node file says otherwise."""
SPINNING_LOOPS: Final = 2
"""The tick thread and the policy thread."""

GOOD_CLOCKS: Final = frozenset(
    {"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"}
)
"""Clock sources that are read without leaving the processor, in tens of nanoseconds."""
MAX_RESOLUTION_NS: Final = 1_000
"""Resolution that a tick of 10 us needs (assumed)."""
FAIR_SERVER_SINCE: Final = (6, 12)
"""Kernel whose fair server gives normal tasks 50 ms of each second on a core."""

_CAP_IPC_LOCK: Final = 14
_CAP_SYS_NICE: Final = 23
_CPU: Final = "/sys/devices/system/cpu"


def check_machine(system: System) -> list[Finding]:
    """All checks that need no node file."""
    return [check(system) for check in CHECKS]


def check_python(system: System) -> Finding:
    """The interpreter is new enough."""
    version = system.python()
    found = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return problem("python", found, "qnodeos needs Python 3.11 or newer")
    return ok("python", found)


def check_packages(system: System) -> Finding:
    """What the service imports is installed."""
    versions = {name: system.package(name) for name in REQUIRED}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return problem("packages", f"missing: {', '.join(missing)}", "pip install qnodeos")
    return ok("packages", ", ".join(f"{name} {version}" for name, version in versions.items()))


def check_optional_packages(system: System) -> Finding:
    """What only hardware or metrics need."""
    versions = {name: system.package(name) for name in OPTIONAL}
    found = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    return ok("optional packages", found)


def check_engine(system: System) -> Finding:
    """The tick engine is the C extension."""
    match system.native_engine():
        case True:
            return ok("tick engine", "native (C extension)")
        case False:
            return warning(
                "tick engine",
                "the pure-Python fallback, which cannot hold 100 kHz",
                "install a C compiler and Python's headers, and then qnodeos again "
                "(Debian: apt install gcc python3-dev)",
            )
        case None:
            return problem("tick engine", "it cannot be imported", "install qnodeos again")


def check_kernel(system: System) -> Finding:
    """The kernel is a real-time one."""
    release, version = system.kernel()
    is_real_time = system.text("/sys/kernel/realtime") == "1" or "PREEMPT_RT" in version
    if is_real_time:
        return ok("kernel", f"{release}, PREEMPT_RT")
    return warning(
        "kernel",
        f"{release}, not PREEMPT_RT: single ticks may come some hundred microseconds late",
        "boot a PREEMPT_RT kernel (Debian: linux-image-rt-amd64)",
    )


def check_timer_interrupt(system: System) -> Finding:
    """The timer interrupt stays away from the core of the tick thread."""
    options = system.kernel_options()
    if options is None:
        return ok("timer interrupt", "the kernel does not show its configuration")
    frequency = options.get("HZ", "?")
    full = system.text(f"{_CPU}/nohz_full")
    if options.get("NO_HZ_FULL") == "y" and full and full != "(null)":
        return ok("timer interrupt", f"{frequency} Hz, and not on cores {full} (nohz_full)")
    # Measured at 250 Hz: 0.36 % of the ticks of 10 us start late.
    remedy = "boot with nohz_full= and rcu_nocbs= for the core of the tick thread"
    if options.get("NO_HZ_FULL") != "y":
        remedy = f"use a kernel built with NO_HZ_FULL, and {remedy}"
    return warning("timer interrupt", f"{frequency} Hz on every core; each delays a tick", remedy)


def check_throttling(system: System) -> Finding:
    """A spinning thread is not stopped for a part of each second."""
    check = "throttling"
    runtime = system.text("/proc/sys/kernel/sched_rt_runtime_us")
    period = system.text("/proc/sys/kernel/sched_rt_period_us") or "1000000"
    if runtime is None:
        return ok(check, "unknown: /proc/sys/kernel/sched_rt_runtime_us cannot be read")
    if runtime == "-1":
        return ok(check, "off")
    release, _ = system.kernel()
    options = system.kernel_options() or {"RT_GROUP_SCHED": "y"}
    if _numbers(release) >= FAIR_SERVER_SINCE and options.get("RT_GROUP_SCHED") != "y":
        return ok(check, f"kernel {release} has the fair server instead")
    return warning(
        check,
        f"real-time threads get {runtime} of {period} us, a spinning one stops for the rest",
        "sysctl -w kernel.sched_rt_runtime_us=-1 (and in /etc/sysctl.d/ for good)",
    )


def check_fair_server(system: System) -> Finding:
    """Normal tasks on the core of a spinning thread do not take 50 ms of each second."""
    check = "fair server"
    release, _ = system.kernel()
    if _numbers(release) < FAIR_SERVER_SINCE:
        return ok(check, f"kernel {release} has none")
    folder = "/sys/kernel/debug/sched/fair_server"
    runtimes = {core: system.text(f"{folder}/{core}/runtime") for core in system.names(folder)}
    if runtimes and all(runtime == "0" for runtime in runtimes.values()):
        return ok(check, "off on every core")
    if system.text(f"{_CPU}/isolated"):
        return ok(check, "on, and normal tasks stay away from the isolated cores")
    return warning(
        check,
        "normal tasks on the core of a spinning thread take 50 ms of each second",
        f"isolate that core, or write 0 to {folder}/cpuN/runtime (debugfs)",
    )


def check_priority(system: System) -> Finding:
    """SCHED_FIFO is granted; told apart: no privilege, and no budget of the control group."""
    check = "real-time priority"
    refusal = system.try_fifo(TICK_PRIORITY)
    if refusal is None:
        return ok(check, f"SCHED_FIFO {TICK_PRIORITY} is granted")
    reason = f"SCHED_FIFO {TICK_PRIORITY} is refused: {refusal.strerror or refusal}"
    limit = system.limit(resource.RLIMIT_RTPRIO)
    is_privileged = system.capability(_CAP_SYS_NICE) or limit is None or limit >= TICK_PRIORITY
    options = system.kernel_options() or {}
    if refusal.errno == errno.EPERM and is_privileged:
        group = _cpu_group(system)
        if options.get("RT_GROUP_SCHED") == "y":
            return warning(
                check,
                f"{reason}, because the control group {group} has no real-time budget",
                f"write 950000 to cpu.rt_runtime_us of {group} and of its parents, move the "
                "service to the root group, or boot with rt_group_sched=0 (kernel 6.13 and newer)",
            )
        return warning(
            check, f"{reason}, although this process has the privilege", "look for a sandbox"
        )
    return warning(
        check,
        f"{reason} to this process (RLIMIT_RTPRIO is {limit})",
        f"{INSTALL_HINT}, or set rtprio in /etc/security/limits.d/",
    )


def check_group_scheduling(system: System) -> Finding:
    """Control groups that are made later do not refuse real-time priority."""
    check = "control groups"
    options = system.kernel_options()
    if options is None:
        return ok(check, "the kernel does not show its configuration")
    if options.get("RT_GROUP_SCHED") != "y":
        return ok(check, "the kernel has no real-time budgets of control groups")
    if options.get("RT_GROUP_SCHED_DEFAULT_DISABLED") == "y":
        return ok(check, "RT_GROUP_SCHED, switched off by default")
    group = _cpu_group(system)
    if group in {"", "/"}:
        return ok(check, "RT_GROUP_SCHED, and this process is in the root group")
    return warning(
        check,
        f"RT_GROUP_SCHED: a service in a control group of its own ({group}) may be refused",
        "boot with rt_group_sched=0 (kernel 6.13 and newer), or use a kernel without it",
    )


def check_memory_lock(system: System) -> Finding:
    """Memory may be locked."""
    limit = system.limit(resource.RLIMIT_MEMLOCK)
    if limit is None or system.capability(_CAP_IPC_LOCK):
        return ok("locked memory", "without a limit")
    return warning(
        "locked memory",
        f"this process may lock {limit // 1024} KiB",
        f"{INSTALL_HINT}, or set memlock in /etc/security/limits.d/",
    )


def check_cores(system: System) -> Finding:
    """There are cores for two spinning loops, and one for the rest of the machine."""
    cores = system.cores()
    found = f"{len(cores)} usable ({ranges(cores)})"
    if len(cores) > SPINNING_LOOPS:
        return ok("cores", found)
    if len(cores) == SPINNING_LOOPS:
        return warning(
            "cores",
            f"{found}: two spinning loops leave none to anything else",
            "set realtime.mode to event-paced in the node file, or use more cores",
        )
    return warning(
        "cores",
        f"{found}: too few for two spinning loops; frames are paced by events",
        "use a machine with three cores or more for one frame every tick",
    )


def check_isolation(system: System) -> Finding:
    """A core is kept for the tick thread."""
    isolated = system.text(f"{_CPU}/isolated") or ""
    if isolated:
        return ok("isolated cores", isolated)
    return warning(
        "isolated cores",
        "none: other work is scheduled on the core of the tick thread",
        "boot with isolcpus=managed_irq,domain,N, and name N as realtime.tick_core",
    )


def check_sleep(system: System) -> Finding:
    """Cores do not sleep so deeply that waking takes long."""
    check = "processor sleep"
    device = "/dev/cpu_dma_latency"
    if not system.may(device, os.F_OK):
        return ok(check, f"there is no {device}")
    governor = system.text(f"{_CPU}/cpu0/cpufreq/scaling_governor")
    if governor not in {None, "performance"}:
        return warning(
            check,
            f"the frequency of the cores follows the load (governor {governor})",
            "cpupower frequency-set --governor performance",
        )
    if system.may(device, os.W_OK):
        return ok(check, f"{device} may be held")
    return warning(
        check,
        f"{device} may not be written, so cores may sleep deeply",
        'udev rule: KERNEL=="cpu_dma_latency", GROUP="qnodeos", MODE="0660"',
    )


def check_spidev(system: System) -> Finding:
    """Buses to a device on SPI."""
    nodes = [f"/dev/{name}" for name in system.names("/dev") if name.startswith("spidev")]
    if not nodes:
        return ok("spidev", "no bus (needed for a device with link: spidev only)")
    closed = [node for node in nodes if not system.may(node, os.R_OK | os.W_OK)]
    if closed:
        return warning(
            "spidev",
            f"{', '.join(closed)} may not be used by this account",
            'udev rule: SUBSYSTEM=="spidev", GROUP="spi", MODE="0660"; add the account to spi',
        )
    return ok("spidev", ", ".join(nodes))


def check_clock(system: System) -> Finding:
    """The monotonic clock is fast to read and fine enough."""
    folder = "/sys/devices/system/clocksource/clocksource0"
    source = system.text(f"{folder}/current_clocksource") or "unknown"
    resolution_ns = system.clock_resolution_ns()
    found = f"{source}, resolution {resolution_ns} ns"
    if resolution_ns > MAX_RESOLUTION_NS:
        return problem("clock", found, "use a kernel with high-resolution timers")
    if source not in GOOD_CLOCKS:
        return warning(
            "clock",
            f"{found}: slow to read",
            f"see {folder}/available_clocksource; boot with clocksource=tsc where it is stable",
        )
    return ok("clock", found)


def check_wall_clock(system: System) -> Finding:
    """The wall clock is kept right; only logs need it, never the schedule."""
    clocks = [name for name in system.names("/dev") if name.startswith("ptp")]
    hardware = f"; hardware clocks: {', '.join(clocks)}" if clocks else ""
    match system.is_clock_synchronised():
        case True:
            return ok("wall clock", f"synchronised{hardware}")
        case False:
            return warning(
                "wall clock",
                f"not synchronised{hardware}: logs of two nodes cannot be compared",
                "run chrony or systemd-timesyncd (or ptp4l and phc2sys); ticks do not need it",
            )
        case None:
            return ok("wall clock", f"unknown{hardware}")


def check_adwin(system: System) -> Finding:
    """The library of the ADwin; its Python package looks for it just so."""
    folder = system.text("/etc/adwin/ADWINDIR")
    if not folder:
        return ok("libadwin", "not installed (needed for an ADwin only)")
    library = f"{folder.splitlines()[0]}/lib/libadwin.so"
    if system.may(library, os.R_OK):
        return ok("libadwin", library)
    return warning(
        "libadwin",
        f"/etc/adwin/ADWINDIR names {folder}, and there is no {library}",
        "install the ADwin software for Linux again",
    )


CHECKS: Final[tuple[Callable[[System], Finding], ...]] = (
    check_python,
    check_packages,
    check_optional_packages,
    check_engine,
    check_kernel,
    check_timer_interrupt,
    check_throttling,
    check_fair_server,
    check_priority,
    check_group_scheduling,
    check_memory_lock,
    check_cores,
    check_isolation,
    check_sleep,
    check_spidev,
    check_clock,
    check_wall_clock,
    check_adwin,
)
"""In the order of the report."""


def _numbers(release: str) -> tuple[int, ...]:
    """The first two numbers of a kernel release such as 6.12.3-rt4."""
    numbers = []
    for part in release.split("-", maxsplit=1)[0].split(".")[:2]:
        numbers.append(int(part) if part.isdecimal() else 0)
    return tuple(numbers)


def _cpu_group(system: System) -> str:
    """Control group of this process in the hierarchy of the CPU controller; empty if unknown."""
    groups = (system.text("/proc/self/cgroup") or "").splitlines()
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpu" in controllers.split(","):
            return path
    return next((line.removeprefix("0::") for line in groups if line.startswith("0::")), "")


def ranges(cores: frozenset[int]) -> str:
    """Cores as the kernel writes them: 0-2,5."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def parse_ranges(text: str) -> frozenset[int]:
    """The inverse of `ranges`; what is no number is left out."""
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal():
            end = int(last) if last.isdecimal() else int(first)
            cores.update(range(int(first), min(end, int(first) + 4096) + 1))
    return frozenset(cores)
