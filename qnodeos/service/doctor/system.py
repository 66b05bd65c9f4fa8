"""The machine as the doctor's checks see it: everything they look at goes through here."""

from __future__ import annotations

import ctypes
import gzip
import importlib.metadata
import os
import platform
import resource
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Final, Protocol

from qnodeos.errors import QNodeOSError
from qnodeos.service.realtime import has_capability
from qnodeos.transport import Address

MAX_TEXT_BYTES: Final = 1 << 20
"""Most bytes read of a file; a kernel's configuration has 300,000."""
TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""
_ANSWER_S: Final = 2.0
"""How long a QNPU that may run already has to answer (assumed)."""
_TIMEX_BYTES: Final = 512
"""More than struct timex has anywhere."""


class System(Protocol):
    """What can be asked of a machine. Nothing of it raises: what cannot be known is None."""

    def text(self, path: str) -> str | None:
        """Content of a text file, without blanks at its ends; None if it cannot be read."""
        ...

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none if it cannot be read."""
        ...

    def may(self, path: str, mode: int) -> bool:
        """Whether a file may be accessed (`os.R_OK`, `os.W_OK`, `os.F_OK`)."""
        ...

    def is_socket(self, path: str) -> bool:
        """Whether there is a Unix socket."""
        ...

    def kernel(self) -> tuple[str, str]:
        """Release and version of the kernel, as uname(2) has them."""
        ...

    def kernel_options(self) -> dict[str, str] | None:
        """Options the kernel was built with, without CONFIG_."""
        ...

    def python(self) -> tuple[int, int, int]:
        """Version of Python."""
        ...

    def package(self, name: str) -> str | None:
        """Version of an installed distribution; None if it is not installed."""
        ...

    def cores(self) -> frozenset[int]:
        """Cores this process may use."""
        ...

    def try_fifo(self, priority: int) -> OSError | None:
        """Ask for SCHED_FIFO in a thread that ends at once; the refusal, if it is refused."""
        ...

    def limit(self, number: int) -> int | None:
        """Soft limit of a resource (`resource.RLIMIT_RTPRIO`); None if there is none."""
        ...

    def capability(self, number: int) -> bool:
        """Whether this process has a capability (linux/capability.h)."""
        ...

    def clock_resolution_ns(self) -> int:
        """Resolution of CLOCK_MONOTONIC."""
        ...

    def is_clock_synchronised(self) -> bool | None:
        """Whether something keeps the wall clock right."""
        ...

    def native_engine(self) -> bool | None:
        """Whether the tick engine is the C extension; None if there is no engine at all."""
        ...

    def listen_error(self, address: Address) -> OSError | None:
        """Why a TCP address cannot be listened on; None if it can."""
        ...

    def running_node(self, address: Address) -> str | None:
        """Name of the node whose QNPU answers at an address; None if none does."""
        ...


class ThisSystem:
    """The machine this runs on; see `System`."""

    def text(self, path: str) -> str | None:
        """See `System`."""
        try:
            with Path(path).open("rb") as file:
                return file.read(MAX_TEXT_BYTES).decode("utf-8", "replace").strip("\0\n\t ")
        except OSError:
            return None

    def names(self, folder: str) -> list[str]:
        """See `System`."""
        try:
            return sorted(os.listdir(folder))
        except OSError:
            return []

    def may(self, path: str, mode: int) -> bool:
        """See `System`."""
        return os.access(path, mode)

    def is_socket(self, path: str) -> bool:
        """See `System`."""
        try:
            return stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            return False

    def kernel(self) -> tuple[str, str]:
        """See `System`."""
        found = os.uname()
        return found.release, found.version

    def kernel_options(self) -> dict[str, str] | None:
        """See `System`."""
        text = self.text(f"/boot/config-{os.uname().release}")
        if text is None:
            try:
                with gzip.open("/proc/config.gz") as file:
                    text = file.read(MAX_TEXT_BYTES).decode("utf-8", "replace")
            except (OSError, EOFError):
                return None
        lines = (line for line in text.splitlines() if line.startswith("CONFIG_"))
        return dict(line.removeprefix("CONFIG_").partition("=")[::2] for line in lines)

    def python(self) -> tuple[int, int, int]:
        """See `System`."""
        major, minor, micro = (int(part) for part in platform.python_version_tuple())
        return major, minor, micro

    def package(self, name: str) -> str | None:
        """See `System`."""
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    def cores(self) -> frozenset[int]:
        """See `System`."""
        return frozenset(os.sched_getaffinity(0))

    def try_fifo(self, priority: int) -> OSError | None:
        """See `System`."""
        refusal: OSError | None = None

        def ask() -> None:
            nonlocal refusal
            try:
                # 0 is the calling thread, so that the doctor itself stays what it is.
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
            except OSError as error:
                refusal = error

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return refusal

    def limit(self, number: int) -> int | None:
        """See `System`."""
        soft, _ = resource.getrlimit(number)
        return None if soft == resource.RLIM_INFINITY else soft

    def capability(self, number: int) -> bool:
        """See `System`."""
        return has_capability(number)

    def clock_resolution_ns(self) -> int:
        """See `System`."""
        return round(time.clock_getres(time.CLOCK_MONOTONIC) * 1e9)

    def is_clock_synchronised(self) -> bool | None:
        """See `System`."""
        # With no bit of `modes` set, which comes first, it changes nothing.
        buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
        return None if state < 0 else state != TIME_ERROR

    def native_engine(self) -> bool | None:
        """See `System`."""
        try:
            from qnodeos.engine.opening import native_module
        except ImportError:
            return None
        return native_module() is not None

    def listen_error(self, address: Address) -> OSError | None:
        """See `System`."""
        try:
            family, place = address.resolve()
        except QNodeOSError as error:
            return OSError(str(error))
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError as error:
                return error
        return None

    def running_node(self, address: Address) -> str | None:
        """See `System`."""
        from qnodeos.cnpu.qnpu_client import QnpuClient

        if not address.is_local:
            return None
        try:
            with QnpuClient.connect(address, name="doctor", timeout_s=_ANSWER_S) as client:
                return client.welcome.node_name
        except (QNodeOSError, OSError):
            return None
