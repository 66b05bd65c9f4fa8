"""What every tick engine does, native or not, spinning or not."""

from __future__ import annotations

import select
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import pytest

from qnodeos.engine import (
    LoopbackLink,
    ShmLink,
    SpidevLink,
    choose_mode,
    open_engine,
    opening,
)
from qnodeos.engine.interface import SKIP_EVENTS, STALL_NS
from qnodeos.errors import ChannelError, ConfigurationError, DeviceError, FrameError
from qnodeos.qdevice.instructions import NOP, Axis, enm, ini, msr, sqg
from qnodeos.qdevice.outcomes import BellState, Outcome
from tests.service.engine_bench import (
    ENGINES,
    TICK_NS,
    Device,
    loopback_bench,
    make_port,
    needs_native,
    shm_bench,
)

every_engine = pytest.mark.parametrize("options", ENGINES)
PROGRAM = [ini(0), sqg(Axis.X, 8, 0), msr(0), ini(1), enm(0, 0)]


@every_engine
def test_what_has_been_closed_does_not_start_again(options, tmp_path):
    path = tmp_path / "spin.channel"
    with make_port(path):
        engine = open_engine(ShmLink(path), **options)
        engine.close()
        engine.close()
        with pytest.raises(DeviceError, match="has been closed"):
            engine.start()
        if engine.is_native:
            from qnodeos.engine.native import NativeEngine

            assert isinstance(engine, NativeEngine)
            with pytest.raises(DeviceError, match="has been closed"):
                engine.run_ticks(1)


@needs_native
@pytest.mark.parametrize("is_spinning", [False, True])
def test_the_extension_refuses_what_comes_after_the_end(is_spinning, tmp_path):
    """Its link is gone: whoever went on would take it out of nowhere."""
    from qnodeos.engine.native import NativeEngine

    path = tmp_path / "spin.channel"
    with make_port(path):
        engine = open_engine(
            ShmLink(path), native=True, mode="spinning" if is_spinning else "event-paced",
            tick_priority=0,
        )  # fmt: skip
        assert isinstance(engine, NativeEngine)
        raw = engine._engine
        engine.close()
        for call in (raw.start, raw.poll, lambda: raw.submit(1), lambda: raw.run_ticks(1)):
            with pytest.raises(ValueError, match="has been closed"):
                call()
        raw.stop()
        raw.close()
        raw.wake_at(5)
        assert raw.filenos()[1] == -1
        assert raw.counters()["is_running"] is False
    # To whoever uses the engine it is one that does not run, as the one in Python.
    assert engine.poll() is None
    with pytest.raises(FrameError, match="not started"):
        engine.submit(ini(0))


FORK = """
    import os, select, sys
    from pathlib import Path
    from qnodeos.engine import ShmLink, open_engine
    from qnodeos.qdevice.instructions import ini

    engine = open_engine(
        ShmLink(Path(sys.argv[1])), native=True, mode=sys.argv[2], tick_priority=0
    )
    engine.start()
    filenos = engine.filenos()
    engine.wake_at(engine.now_tick() + 20_000)
    child = os.fork()
    if not child:
        engine.close()
        os._exit(0)
    ended = os.pidfd_open(child)
    if not select.select([ended], [], [], float(sys.argv[3]))[0]:
        os.kill(child, 9)
        sys.exit("the child hangs")
    assert os.waitpid(child, 0)[1] == 0
    print(sorted(path.name for path in Path(sys.argv[1]).parent.iterdir()))
    timer = filenos[-1]
    assert select.select([timer], [], [], float(sys.argv[3]))[0], "the child took the timer"
    engine.close()
"""


@needs_native
@pytest.mark.parametrize("mode", ["spinning", "event-paced"])
def test_a_fork_may_close_its_copy(mode, tmp_path):
    """It has no tick thread to wait for, and leaves alone what belongs to the other."""
    path = tmp_path / "spin.channel"
    with make_port(path):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FORK), path, mode, "20"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bells = ["spin.channel.qnpu"] if mode == "event-paced" else []
    assert done.stdout == f"{['spin.channel', 'spin.channel.device', *bells]}\n"


@every_engine
@pytest.mark.parametrize("answer_ticks", [0, 7])
def test_loopback_answers_each_instruction_once(options, answer_ticks):
    with loopback_bench(options, answer_ticks=answer_ticks) as bench:
        ticks = []
        for instruction in PROGRAM * 4:
            submitted_tick = bench.engine.now_tick()
            event = bench.run(instruction)
            assert event.outcome is Outcome.SUCCESS_ZERO
            assert event.herald is None
            assert event.tick >= submitted_tick + answer_ticks + 1
            ticks.append(event.tick)
        assert ticks == sorted(set(ticks))
        assert bench.engine.poll() is None
        statistics = bench.engine.statistics()
        assert statistics.link == "loopback"
        assert statistics.instructions == statistics.events == 20
        assert statistics.reaction_ticks.quantile(0) >= 2
        assert statistics.reaction_ticks.total == 19
        assert statistics.given_up == statistics.corrupted_frames == 0


@every_engine
def test_shm_executes_each_instruction_once_in_order(options, tmp_path):
    with shm_bench(tmp_path, options) as (bench, device):
        for instruction in PROGRAM * 4:
            assert bench.run(instruction).outcome is Outcome.SUCCESS_ZERO
        assert device.received == PROGRAM * 4
        assert device.port.attached
        assert bench.engine.capabilities == device.port.info.capabilities
        statistics = bench.engine.statistics()
        assert statistics.instructions == statistics.events == 20
        assert (statistics.link, statistics.tick_ns) == ("shm", TICK_NS)
        assert statistics.device_restarts == statistics.given_up == 0


@every_engine
def test_one_instruction_at_a_time(options, tmp_path):
    with shm_bench(tmp_path, options, answer=None) as (bench, _):
        bench.engine.submit(ini(0))
        assert not bench.engine.idle
        with pytest.raises(FrameError, match="outstanding"):
            bench.engine.submit(ini(0))


@every_engine
def test_a_nop_is_refused(options):
    with loopback_bench(options) as bench, pytest.raises(FrameError, match="NOP"):
        bench.engine.submit(NOP)


@every_engine
def test_nothing_travels_before_start_or_after_stop(options):
    with loopback_bench(options) as bench:
        bench.engine.stop()
        bench.engine.stop()
        with pytest.raises(FrameError, match="not started"):
            bench.engine.submit(ini(0))
        assert bench.engine.poll() is None


@every_engine
def test_start_after_stop_begins_anew(options, tmp_path):
    with shm_bench(tmp_path, options, answer=None) as (bench, device):
        bench.engine.submit(ini(0))
        bench.until_received(device)
        bench.engine.stop()
        device.complete(device.port.now_tick() + 1, Outcome.SUCCESS_ONE)
        device.answer = lambda device, tick, _: device.complete(tick + 1, Outcome.SUCCESS_ZERO)
        bench.engine.start()
        assert bench.engine.idle
        # The outcome that came while it was stopped is not taken for that of the next.
        assert bench.run(msr(0)).outcome is Outcome.SUCCESS_ZERO
        assert device.received == [ini(0), msr(0)]


@every_engine
def test_a_restarted_qnpu_never_takes_an_old_outcome(options, tmp_path):
    with shm_bench(tmp_path, options, answer=None) as (bench, device):
        bench.engine.submit(ini(0))
        bench.until_received(device)
        generation = device.port.generation
        bench.engine.close()
        assert not device.port.attached
        device.complete(device.port.now_tick() + 1, Outcome.SUCCESS_ONE)
        device.answer = lambda device, tick, _: device.complete(tick + 1, Outcome.SUCCESS_ZERO)
        bench.engine = open_engine(ShmLink(device.port.path), **options)
        try:
            bench.engine.start()
            assert device.port.generation > generation
            assert bench.run(msr(0)).outcome is Outcome.SUCCESS_ZERO
        finally:
            bench.engine.close()


@every_engine
def test_an_event_says_which_frame_first_carried_its_instruction(options, tmp_path):
    carried = []

    def answer(device: Device, tick: int, _: object) -> None:
        carried.append(tick)
        device.complete(tick + 1, Outcome.SUCCESS_ZERO)

    with shm_bench(tmp_path, options, answer) as (bench, _):
        events = [bench.run(instruction) for instruction in PROGRAM * 4]
    assert [event.command_tick for event in events] == carried
    assert all(event.command_tick < event.tick for event in events)
    assert all(after.command_tick > event.tick for event, after in pairwise(events))


@every_engine
def test_what_is_given_up_says_whether_it_had_gone_out(options, tmp_path):
    carried = []

    def remember(device: Device, tick: int, _: object) -> None:
        carried.append(tick)

    options = {**options, "busy_limit_ticks": 500}
    with shm_bench(tmp_path, options, remember) as (bench, device):
        events = [bench.run(ini(0))]
        while not device.received:  # who has to wait for a core may not get so far at once
            events.append(bench.run(ini(0)))
        assert {event.outcome for event in events} == {Outcome.HARDWARE_FAILURE}
        assert carried[0] in {event.command_tick for event in events}
        # The device is busy with it still, so no session is opened and no frame carries this one.
        event = bench.run(msr(0))
        assert event.outcome is Outcome.HARDWARE_FAILURE
        assert (event.command_tick, device.received) == (event.tick, [ini(0)])
        bench.device = None
        device.port.close()
        bench.until(lambda: not (bench.engine.poll() or bench.engine.statistics().device_attached))
        event = bench.run(msr(0))
        assert (event.outcome, event.command_tick) == (Outcome.HARDWARE_FAILURE, event.tick)


@every_engine
def test_outcome_and_herald_come_through(options, tmp_path):
    def answer(device: Device, tick: int, _: object) -> None:
        device.complete(tick + 3, Outcome.SUCCESS_ONE, BellState.PSI_MINUS)

    with shm_bench(tmp_path, options, answer) as (bench, _):
        event = bench.run(enm(0, 0))
        assert (event.outcome, event.herald) == (Outcome.SUCCESS_ONE, BellState.PSI_MINUS)


@every_engine
def test_a_response_comes_at_its_tick_and_not_before(options, tmp_path):
    due = []

    def answer(device: Device, tick: int, _: object) -> None:
        due.append(tick + 2_000)
        device.complete(due[-1], Outcome.SUCCESS_ZERO)

    with shm_bench(tmp_path, options, answer) as (bench, _):
        event = bench.run(ini(0))
        assert bench.engine.now_tick() >= event.tick >= due[0]
        if bench.engine.mode == "event-paced":
            assert event.tick == due[0]


@every_engine
def test_a_later_response_replaces_what_it_does_not_follow(options, tmp_path):
    def answer(device: Device, tick: int, _: object) -> None:
        good = device.slave
        good.complete(Outcome.SUCCESS_ONE)
        device.port.respond(tick + 3_000, good.outgoing(tick + 3_000))
        good._answered ^= 1
        good.complete(Outcome.SUCCESS_ZERO)
        device.port.respond(tick + 500, good.outgoing(tick + 500))

    with shm_bench(tmp_path, options, answer) as (bench, _):
        assert bench.run(ini(0)).outcome is Outcome.SUCCESS_ZERO


@every_engine
def test_a_damaged_response_is_not_believed(options, tmp_path):
    def answer(device: Device, tick: int, _: object) -> None:
        device.slave.complete(Outcome.SUCCESS_ONE)
        frame = device.slave.outgoing(tick + 1)
        device.port.respond(tick + 1, frame ^ 1 << 30)
        device.port.respond(tick + 3_000, frame_at_tick(device, tick + 3_000))

    def frame_at_tick(device: Device, tick: int) -> int:
        return device.slave.outgoing(tick)

    with shm_bench(tmp_path, options, answer) as (bench, _):
        assert bench.run(msr(0)).outcome is Outcome.SUCCESS_ONE
        assert bench.engine.statistics().corrupted_frames > 0


@every_engine
def test_a_restarted_device_costs_its_instruction_only(options, tmp_path):
    def restart(device: Device, tick: int, _: object) -> None:
        device.answer = lambda device, tick, _: device.complete(tick + 1, Outcome.SUCCESS_ZERO)
        device.restart()

    with shm_bench(tmp_path, options, restart) as (bench, device):
        assert bench.run(ini(0)).outcome is Outcome.HARDWARE_FAILURE
        assert bench.run(msr(0)).outcome is Outcome.SUCCESS_ZERO
        statistics = bench.engine.statistics()
        assert (statistics.device_restarts, statistics.given_up) == (1, 1)
        assert device.received == [ini(0), msr(0)]


@every_engine
def test_a_device_that_stays_busy_is_given_up(options, tmp_path):
    with shm_bench(tmp_path, {**options, "busy_limit_ticks": 500}, None) as (bench, device):
        assert bench.run(ini(0)).outcome is Outcome.HARDWARE_FAILURE
        statistics = bench.engine.statistics()
        assert (statistics.busy_timeouts, statistics.given_up) == (1, 1)
        # And again, although it never entered the new session.
        assert bench.run(ini(0)).outcome is Outcome.HARDWARE_FAILURE
        if device.slave.busy:  # if it had the time to begin
            device.complete(device.port.now_tick() + 1, Outcome.SUCCESS_ONE)
        device.answer = lambda device, tick, _: device.complete(tick + 1, Outcome.SUCCESS_ZERO)
        bench.until(lambda: bench.run(msr(0)).outcome is Outcome.SUCCESS_ZERO)


@every_engine
def test_a_silent_device_is_given_up(options, tmp_path):
    with shm_bench(tmp_path, {**options, "silence_limit_ticks": 3_000}) as (bench, device):
        bench.device = None
        assert bench.run(ini(0)).outcome is Outcome.HARDWARE_FAILURE
        statistics = bench.engine.statistics()
        assert (statistics.given_up, statistics.busy_timeouts) == (1, 0)
        bench.device = device
        bench.until(lambda: bench.run(msr(0)).outcome is Outcome.SUCCESS_ZERO)


@every_engine
def test_a_lab_may_go_and_come_back(options, tmp_path):
    with shm_bench(tmp_path, options, None) as (bench, device):
        bench.engine.submit(ini(0))
        bench.until_received(device)
        filenos = bench.engine.filenos()
        before = bench.engine.now_tick()
        bench.device = None
        device.port.close()
        event = bench.event()
        assert event.outcome is Outcome.HARDWARE_FAILURE
        assert not bench.engine.statistics().device_attached
        # While it is away, nothing hangs.
        assert bench.run(ini(0)).outcome is Outcome.HARDWARE_FAILURE
        with make_port(device.port.path) as port:
            bench.device = Device(
                port, lambda device, tick, _: device.complete(tick + 1, Outcome.SUCCESS_ZERO)
            )
            bench.until(lambda: bench.engine.poll() or bench.engine.statistics().device_attached)
            bench.until(lambda: bench.run(msr(0)).outcome is Outcome.SUCCESS_ZERO)
            assert bench.engine.now_tick() >= before
            # The low bits, which all nodes share, are the new device's.
            tick, time_ns = bench.engine.tick_reading()
            assert (tick - port.info.tick_at(time_ns)) % 4096 == 0
            assert bench.engine.filenos() == filenos
            assert bench.engine.statistics().device_restarts == 1
            bench.device = None


@every_engine
def test_a_lab_that_starts_again_at_once_is_noticed(options, tmp_path):
    with shm_bench(tmp_path, options, None) as (bench, device):
        bench.engine.submit(ini(0))
        bench.until_received(device)
        device.port.close()
        with make_port(device.port.path) as port:
            bench.device = Device(
                port, lambda device, tick, _: device.complete(tick + 1, Outcome.SUCCESS_ZERO)
            )
            assert bench.event().outcome is Outcome.HARDWARE_FAILURE
            bench.until(lambda: bench.run(msr(0)).outcome is Outcome.SUCCESS_ZERO)
            assert set(bench.device.received) == {msr(0)}
            statistics = bench.engine.statistics()
            assert statistics.device_restarts == 1
            assert statistics.ring_overflows == 0
            bench.device = None


@every_engine
def test_another_device_in_its_place_is_not_taken(options, tmp_path):
    with shm_bench(tmp_path, options) as (bench, device):
        bench.device = None
        device.port.close()
        with make_port(device.port.path, name="other"):
            bench.until(
                lambda: bench.engine.poll() or not bench.engine.statistics().device_attached
            )
            for _ in range(3):
                assert bench.run(ini(0)).outcome is Outcome.HARDWARE_FAILURE


@every_engine
def test_only_one_qnpu_at_a_channel(options, tmp_path):
    with shm_bench(tmp_path, options) as (_, device), pytest.raises(ChannelError, match="another"):
        open_engine(ShmLink(device.port.path), **options)


@every_engine
def test_the_clock_is_the_channels(options, tmp_path):
    with shm_bench(tmp_path, options) as (bench, device):
        tick, time_ns = bench.engine.tick_reading()
        assert tick == device.port.info.tick_at(time_ns)
        ticks = [bench.engine.now_tick() for _ in range(1_000)]
        assert ticks == sorted(ticks)
        assert ticks[0] >= tick


@every_engine
def test_wakes_at_a_tick_once(options, tmp_path):
    with shm_bench(tmp_path, options) as (bench, _):
        filenos = bench.engine.filenos()
        wake_tick = bench.engine.now_tick() + 300
        bench.engine.wake_at(wake_tick)
        deadline = time.monotonic() + 60
        while bench.engine.now_tick() < wake_tick:
            assert time.monotonic() < deadline
            select.select(filenos, [], [], 60)
            if bench.engine.now_tick() < wake_tick:
                bench.engine.poll()
        assert select.select(filenos, [], [], 60)[0]
        bench.engine.poll()

        def quiet() -> bool:
            bench.engine.poll()
            return not select.select(filenos, [], [], 0)[0]

        bench.until(quiet)


@every_engine
@pytest.mark.parametrize("tick", [-(1 << 60), 1 << 60, None])
def test_wishes_that_make_no_sense_do_no_harm(options, tick):
    with loopback_bench(options) as bench:
        bench.engine.filenos()
        bench.engine.wake_at(tick)
        assert bench.run(ini(0)).outcome is Outcome.SUCCESS_ZERO


@every_engine
def test_a_stall_is_counted_and_loses_nothing(options):
    """50 ms: whoever exchanges frames, the thread or the policy, does nothing for so long."""
    with loopback_bench(options) as bench:
        engine = bench.engine
        assert bench.run(ini(0)).outcome is Outcome.SUCCESS_ZERO
        engine.take_skips()
        before = engine.statistics()
        if engine.mode == "spinning":
            from qnodeos.engine.native import NativeEngine

            assert isinstance(engine, NativeEngine)
            engine.inject_stall(50_000_000)
            bench.until(lambda: engine.statistics().stalls > before.stalls)
            engine.submit(msr(0))
        else:
            engine.submit(msr(0))
            begin_ns = engine.tick_reading()[1]
            while engine.tick_reading()[1] < begin_ns + 50_000_000:
                select.select([], [], [], 0.05)
        assert bench.event().outcome is Outcome.SUCCESS_ZERO
        after = engine.statistics()
        assert after.stalls > before.stalls
        assert after.lateness_ns.maximum > STALL_NS
        assert after.skipped - before.skipped >= 4_900
        skips = engine.take_skips()
        assert max(skip.slots for skip in skips) >= 4_900
        assert sum(skip.slots for skip in skips) <= engine.statistics().skipped - before.skipped
        assert engine.take_skips() == [] or engine.mode == "spinning"
        assert after.given_up == 0
        for _ in range(5):
            assert bench.run(ini(0)).outcome is Outcome.SUCCESS_ZERO


@needs_native
def test_skips_that_nobody_reads_are_counted():
    options = {"native": True, "mode": "spinning", "tick_priority": 0}
    # A tick so short that nearly every one is missed.
    with loopback_bench(options, tick_ns=100) as bench:
        bench.until(lambda: bench.engine.statistics().skips_unread > 0)
        skips = bench.engine.take_skips()
        assert len(skips) >= SKIP_EVENTS
        assert all(skip.slots >= 1 for skip in skips)


@every_engine
def test_closing_twice_does_no_harm(options, tmp_path):
    with shm_bench(tmp_path, options) as (bench, _):
        bench.engine.close()
        bench.engine.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "spin.channel", "spin.channel.device"
        ]  # fmt: skip


@needs_native
def test_the_tick_thread_says_what_it_lacks():
    options = {"native": True, "mode": "spinning", "tick_priority": 1}
    with loopback_bench(options) as bench:
        assert bench.run(ini(0)).outcome is Outcome.SUCCESS_ZERO
        statistics = bench.engine.statistics()
        assert statistics.priority in {0, 1}
        assert any("pinned" in text for text in statistics.warnings)
        if not statistics.priority:
            assert any("CAP_SYS_NICE" in text for text in statistics.warnings)


# --- which engine -----------------------------------------------------------------------


def test_without_the_extension_the_fallback_announces_itself(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "qnodeos.engine._native", None)
    engine = open_engine(LoopbackLink(), mode="spinning")
    try:
        statistics = engine.statistics()
        assert (engine.is_native, engine.mode) == (False, "event-paced")
        assert len(caplog.records) == 1
        for text in (caplog.text, *statistics.warnings):
            assert "pure-Python" in text
            assert "was not built" in text
            assert "cannot spin" in text
    finally:
        engine.close()


def test_without_the_extension_what_needs_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "qnodeos.engine._native", None)
    with pytest.raises(ConfigurationError, match="compiler"):
        open_engine(LoopbackLink(), native=True)
    with pytest.raises(ConfigurationError, match="compiler"):
        open_engine(SpidevLink(0, 0))


@needs_native
def test_the_extension_is_used_where_it_is(caplog):
    engine = open_engine(LoopbackLink())
    try:
        assert engine.is_native
        assert not caplog.records
    finally:
        engine.close()


def test_auto_spins_only_on_cores_of_its_own():
    assert choose_mode("auto", 2, 2) == "event-paced"
    assert choose_mode("auto", 3, 2) == "spinning"
    assert choose_mode("auto", 4, 5) == "event-paced"
    assert choose_mode("auto", 2, 5, tick_core=1) == "spinning"
    assert choose_mode("spinning", 2, 5) == "spinning"
    assert choose_mode("event-paced", 64, 2) == "event-paced"


@needs_native
def test_spinning_needs_two_cores(monkeypatch):
    monkeypatch.setattr(opening, "usable_cores", lambda: 1)
    with pytest.raises(ConfigurationError, match="only core"):
        open_engine(LoopbackLink(), mode="spinning")


@pytest.mark.parametrize(
    ("link", "options", "field"),
    [
        (LoopbackLink(tick_ns=1), {}, "tick_ns"),
        (LoopbackLink(answer_ticks=-1), {}, "answer_ticks"),
        (LoopbackLink(), {"tick_priority": 100}, "tick_priority"),
        (LoopbackLink(), {"silence_limit_ticks": 1}, "silence_limit_ticks"),
        (LoopbackLink(), {"busy_limit_ticks": 0}, "busy_limit_ticks"),
        (LoopbackLink(), {"tick_core": 4096}, "tick_core"),
    ],
)
def test_impossible_settings_are_named(link, options, field):
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        open_engine(link, **options)


@every_engine
def test_a_channel_that_is_not_there_is_named(options, tmp_path):
    with pytest.raises(ChannelError, match=r"no channel .*absent"):
        open_engine(ShmLink(tmp_path / "absent"), **options)
    assert list(Path(tmp_path).iterdir()) == []
