"""The SPI link, against a device that is put in place of the kernel's driver.

A small library, loaded before the C library, answers what the engine asks of
``/dev/spidev7.3``; its device counts a tick for each transfer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import qnodeos.engine
from qnodeos.engine import SpidevLink, open_engine
from qnodeos.errors import DeviceError
from tests.service.engine_bench import needs_native

CSRC = Path(qnodeos.engine.__file__).with_name("csrc")
COMPILER = shutil.which("gcc") or shutil.which("cc")

pytestmark = [
    needs_native,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the device with"),
]

SHIM = """
    #include <dlfcn.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/spi/spidev.h>
    #include <stdarg.h>
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>

    #include "slave.h"

    #define PATH "/dev/spidev7.3"

    static int spi = -1;
    static slave_t slave;
    static unsigned long transfers, due, first_tick, answer_ticks, fail_every, damage_every, mode;

    static unsigned long setting(const char *name)
    {
        return strtoul(getenv(name), NULL, 10);
    }

    static int open_any(const char *path, int flags, int permissions)
    {
        int (*real)(const char *, int, ...) =
            (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
        if (strcmp(path, PATH))
            return real(path, flags, permissions);
        frames_prepare();
        slave_start(&slave);
        first_tick = setting("SHIM_FIRST_TICK");
        answer_ticks = setting("SHIM_ANSWER_TICKS");
        fail_every = setting("SHIM_FAIL_EVERY");
        damage_every = setting("SHIM_DAMAGE_EVERY");
        return spi = real("/dev/null", O_RDWR | O_CLOEXEC);
    }

    #define OPEN(name)                                                          \\
        int name(const char *path, int flags, ...)                              \\
        {                                                                       \\
            va_list rest;                                                       \\
            va_start(rest, flags);                                              \\
            int permissions = flags & O_CREAT ? va_arg(rest, int) : 0;          \\
            va_end(rest);                                                       \\
            return open_any(path, flags, permissions);                          \\
        }
    OPEN(open)
    OPEN(open64)

    static int transfer(struct spi_ioc_transfer *message)
    {
        unsigned char *sent = (unsigned char *)(uintptr_t)message->tx_buf;
        unsigned char *answer = (unsigned char *)(uintptr_t)message->rx_buf;
        transfers++;
        if (message->len != 4 || message->bits_per_word != 8 || message->speed_hz != 1000000)
            abort();
        if (fail_every && transfers % fail_every == 0) {
            errno = EIO;
            return -1;
        }
        if (slave_is_busy(&slave) && transfers > due)
            slave_complete(&slave, OUTCOME_SUCCESS_ZERO);
        uint32_t frame = frame_at(slave.frame, 0, (int64_t)(first_tick + transfers));
        if (damage_every && transfers % damage_every == 0)
            frame ^= 0x00100000;
        uint32_t command = (uint32_t)sent[0] << 24 | (uint32_t)sent[1] << 16 |
                           (uint32_t)sent[2] << 8 | sent[3];
        if (slave_incoming(&slave, command))
            due = transfers + answer_ticks;
        for (int place = 0; place < 4; place++)
            answer[place] = (unsigned char)(frame >> (24 - 8 * place));
        return 4;
    }

    int ioctl(int descriptor, unsigned long request, ...)
    {
        va_list rest;
        va_start(rest, request);
        void *argument = va_arg(rest, void *);
        va_end(rest);
        if (descriptor != spi || spi < 0) {
            int (*real)(int, unsigned long, ...) =
                (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
            return real(descriptor, request, argument);
        }
        if (request == SPI_IOC_MESSAGE(1))
            return transfer(argument);
        if (request == SPI_IOC_WR_MODE)
            mode = *(unsigned char *)argument;
        if (request == SPI_IOC_RD_MODE)
            *(unsigned char *)argument = getenv("SHIM_STUCK_MODE") ? 0 : (unsigned char)mode;
        return 0;
    }
"""

PROGRAM = """
    import json, os, select, sys, time
    from qnodeos.engine import SpidevLink, open_engine
    from qnodeos.qdevice.instructions import ini

    engine = open_engine(
        SpidevLink(7, 3, speed_hz=1_000_000, mode=2), mode=sys.argv[1], tick_priority=0,
        native=True, silence_limit_ticks=int(sys.argv[2]),
    )
    engine.start()
    events = []
    deadline = time.monotonic() + 60
    for number in range(30):
        engine.submit(ini(0))
        while (event := engine.poll()) is None:
            assert time.monotonic() < deadline, engine.statistics()
            select.select(engine.filenos(), [], [], 0.05)
        events.append((event.tick, event.outcome.name, event.command_tick))
    now_tick = engine.now_tick()
    statistics = engine.statistics()
    engine.close()
    json.dump(
        {
            "events": events,
            "now_tick": now_tick,
            "ticks": statistics.ticks,
            "link_errors": statistics.link_errors,
            "corrupted_frames": statistics.corrupted_frames,
            "given_up": statistics.given_up,
            "link": statistics.link,
        },
        sys.stdout,
    )
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(textwrap.dedent(SHIM), "utf-8")
    assert COMPILER is not None
    subprocess.run(
        [COMPILER, "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-shared",
         "-fPIC", f"-I{CSRC}", "-o", library, source, CSRC / "frames.c", "-ldl"],
        check=True, timeout=120,
    )  # fmt: skip
    return library


def run(shim: Path, mode: str, silence_limit: int = 1_000, **settings: int) -> dict[str, Any]:
    environment = {
        "SHIM_FIRST_TICK": "0", "SHIM_ANSWER_TICKS": "0", "SHIM_FAIL_EVERY": "0",
        "SHIM_DAMAGE_EVERY": "0", **{name: str(value) for name, value in settings.items()},
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), mode, str(silence_limit)],
        env={**os.environ, **environment, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


both_modes = pytest.mark.parametrize("mode", ["spinning", "event-paced"])


@both_modes
@pytest.mark.parametrize("answer_ticks", [0, 9])
def test_instructions_travel_over_spi(shim, mode, answer_ticks):
    found = run(shim, mode, SHIM_ANSWER_TICKS=answer_ticks, SHIM_FIRST_TICK=4_000)
    assert found["link"] == "spidev"
    assert [outcome for _, outcome, _ in found["events"]] == ["SUCCESS_ZERO"] * 30
    ticks = [tick for tick, _, _ in found["events"]]
    assert all(later - tick >= answer_ticks + 2 for tick, later in pairwise(ticks))
    # The commands', too, are the device's.
    assert {tick - command for tick, _, command in found["events"]} == {answer_ticks + 1}
    assert found["corrupted_frames"] == found["link_errors"] == found["given_up"] == 0
    # The ticks are those the device counts, one for each transfer; 96 before it turns over.
    assert (ticks[-1] - 4_000) % 4096 <= found["ticks"]


@both_modes
def test_damage_and_failures_are_counted_and_lose_nothing(shim, mode):
    found = run(shim, mode, SHIM_DAMAGE_EVERY=3, SHIM_FAIL_EVERY=5)
    assert [outcome for _, outcome, _ in found["events"]] == ["SUCCESS_ZERO"] * 30
    assert found["corrupted_frames"] > 0
    assert found["link_errors"] > 0
    assert found["given_up"] == 0


@both_modes
def test_a_bus_that_always_fails_gives_instructions_up(shim, mode):
    found = run(shim, mode, silence_limit=20, SHIM_FAIL_EVERY=1)
    assert [outcome for _, outcome, _ in found["events"]] == ["HARDWARE_FAILURE"] * 30
    # No session was ever open, so nothing went out.
    assert all(tick == command for tick, _, command in found["events"])
    assert found["given_up"] == 30


def test_a_mode_the_controller_does_not_take_is_refused(shim):
    with pytest.raises(RuntimeError, match=r"DeviceError: /dev/spidev7\.3 cannot be used: Invalid"):
        run(shim, "spinning", SHIM_STUCK_MODE=1)


def test_a_bus_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match=r"spidev31\.15 cannot be used: No such file"):
        open_engine(SpidevLink(31, 15))
