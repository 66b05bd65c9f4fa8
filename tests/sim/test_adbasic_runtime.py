"""Time, the processor's share, and the modules in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.adwin.arithmetic import make_overrun
from sim.adwin.errors import HardwareFault
from sim.adwin.hardware import InMemoryHardware
from sim.adwin.memory import MemoryExceeded
from sim.adwin.options import Costs, ProcessorModel
from sim.adwin.transpiler import transpile_file
from tests.sim.adbasic_harness import PROGRAMS, run_init, system_with, write_source

FREE = Costs(operation=0, memory=0, branch=0, division=0, function=0, instruction=0, event=0)


def model(**settings):
    return ProcessorModel(costs=FREE, **settings)


def slow_every_third(duration_10_ns):
    """A program whose every third event sleeps."""
    return (
        "DIM DATA_1[1000] AS LONG\nDIM n AS LONG\nEVENT:\n  INC(PAR_1)\n"
        "  DATA_1[PAR_1] = READ_TIMER()\n  INC(n)\n"
        f"  IF (n = 3) THEN\n    n = 0\n    CPU_SLEEP({duration_10_ns})\n  ENDIF\n"
    )


def times(system, count):
    return system.memory.elements(1)[1 : count + 1]


def test_events_are_on_the_grid_however_time_passes(tmp_path):
    path = write_source(tmp_path, slow_every_third(50), delay=300)
    whole = system_with(path, model=model())
    whole.start(1)
    whole.run_until_cycle(300_001)
    pieces = system_with(path, model=model())
    pieces.start(1)
    for cycle in range(0, 300_001, 77):
        pieces.run_until_cycle(cycle)
    pieces.run_until_cycle(300_001)
    assert times(whole, 1000) == list(range(300, 300_001, 300))
    assert times(pieces, 1000) == times(whole, 1000)
    assert pieces.memory.par == whole.memory.par


def test_an_event_that_takes_too_long_delays_one_and_loses_the_others(tmp_path):
    # 2.5 us of sleep from a tick: the ticks after 1 and 2 us pass, one is made up for.
    path = write_source(tmp_path, slow_every_third(250), delay=300)
    system = system_with(path, model=model())
    system.start(1)
    system.run_until_cycle(3_001)
    assert times(system, 8) == [300, 600, 900, 1650, 1800, 2100, 2850, 3000]
    assert system.processes[1].lost_events == 2


def test_pending_events_are_an_option(tmp_path):
    path = write_source(tmp_path, slow_every_third(250), delay=300)
    system = system_with(path, model=model(pending_events=0))
    system.start(1)
    system.run_until_cycle(3_001)
    assert times(system, 6) == [300, 600, 900, 1800, 2100, 2400]
    assert system.processes[1].lost_events == 4


@given(st.integers(0, 10_000), st.integers(1, 500), st.integers(0, 100), st.sampled_from([0, 1]))
def test_what_follows_an_overrun(tick, delay, late, pending):
    now = tick + late
    start, next_tick, lost = make_overrun(pending)(now, tick, delay, 7)
    ticks = range(tick, now + 1, delay)
    assert next_tick in (ticks[-1], ticks[-1] + delay)
    if pending:
        assert (start, next_tick, lost) == (now, ticks[-1], 7 + len(ticks) - 1)
    else:
        assert start == next_tick > now
        assert lost == 7 + len(ticks)


def test_workload_is_the_time_used(tmp_path):
    path = write_source(tmp_path, "EVENT:\n  CPU_SLEEP(40)\n", delay=300)
    system = system_with(path, model=model())
    system.start(1)
    system.run_until_cycle(300_000)
    assert system.workload() == 40
    system.stop(1)
    system.run_until_cycle(600_000)
    assert system.workload() == 0


def test_every_operation_costs_what_the_table_says(tmp_path):
    body = "DIM x AS LONG\nEVENT:\n  x = x + 1\n  P2_CNT_CLEAR(1, x)\n  PAR_1 = READ_TIMER()\n"
    costs = Costs(operation=3, memory=5, instruction=7, event=11)
    system = system_with(write_source(tmp_path, body), model=ProcessorModel(costs=costs))
    system.start(1)
    system.run_until_cycle(400)
    # Store, load and add; the instruction and its load; PAR is written after the time is read.
    assert system.memory.par[1] == 300 + 11 + 3 * 3 + 7 + 3 + 5
    assert system.processes[1].busy_cycles == 11 + 9 + 10 + 5


def test_branches_cost_only_when_they_run(tmp_path):
    body = (
        "EVENT:\n  IF (PAR_1 = 1) THEN\n    P2_CNT_CLEAR(1, 1)\n  ELSEIF (PAR_1 = 2) THEN\n"
        "    P2_CNT_CLEAR(1, 1)\n    P2_CNT_CLEAR(1, 1)\n"
        "  ELSEIF (P2_DIGIN_LONG(1) = 7) THEN\n    P2_CNT_CLEAR(1, 1)\n  ENDIF\n"
    )
    costs = FREE.model_copy(update={"instruction": 10, "branch": 1})
    spent = []
    for value in (1, 2, 3):
        system = system_with(write_source(tmp_path, body), model=ProcessorModel(costs=costs))
        system.start(1)
        system.memory.par[1] = value
        system.run_until_cycle(301)
        spent.append(system.processes[1].busy_cycles)
    assert spent == [11, 22, 3 + 10]


def test_processdelay_can_be_changed_by_the_program(tmp_path):
    body = "DIM DATA_1[9] AS LONG\nEVENT:\n  INC(PAR_1)\n  DATA_1[PAR_1] = READ_TIMER()\n"
    body += "  IF (PAR_1 = 2) THEN PROCESSDELAY = 1000\n"
    system = system_with(write_source(tmp_path, body), model=model())
    system.start(1)
    system.run_until_cycle(3_000)
    assert times(system, 4) == [300, 600, 1600, 2600]
    assert system.processes[1].delay == 1000


def test_external_edges_start_events(tmp_path):
    body = "DIM DATA_1[9] AS LONG\nEVENT:\n  INC(PAR_1)\n  DATA_1[PAR_1] = READ_TIMER()\n"
    path = write_source(tmp_path, body + "  CPU_SLEEP(100)\n", source="External")
    system = system_with(path, model=model())
    system.start(1)
    for cycle in (1_000, 2_000, 2_050, 2_100, 5_000):
        system.trigger(1, cycle)
    system.run_until_cycle(10_000)
    # Two edges come while the event of 2,000 runs: one waits until it is done at 2,300.
    assert times(system, 4) == [1_000, 2_000, 2_300, 5_000]
    assert system.processes[1].lost_events == 1
    with pytest.raises(HardwareFault, match="it is 10000 already"):
        system.trigger(1, 9_000)
    with pytest.raises(HardwareFault, match="does not wait for external"):
        system.trigger(2, 11_000)


def test_two_processes_share_the_processor(tmp_path):
    body = "DIM DATA_{0}[99] AS LONG\nEVENT:\n  INC(PAR_{0})\n  DATA_{0}[PAR_{0}] = READ_TIMER()\n"
    first = write_source(tmp_path, body.format(1) + "  CPU_SLEEP(50)\n", delay=600, name="a.bas")
    second = write_source(tmp_path, body.format(2), number=2, delay=300, name="b.bas")
    system = system_with(first, second, model=model())
    system.start(1)
    system.start(2)
    system.run_until_cycle(1_900)
    assert times(system, 3) == [600, 1200, 1800]
    # At the same cycle the lower number goes first; the other waits for its 500 ns.
    assert system.memory.elements(2)[1:6] == [300, 750, 900, 1350, 1500]
    assert system.processes[2].lost_events == 0


def test_low_priority_delays_nobody(tmp_path):
    body = "DIM DATA_1[99] AS LONG\nEVENT:\n  INC(PAR_1)\n  DATA_1[PAR_1] = READ_TIMER()\n"
    high = write_source(tmp_path, body, name="a.bas")
    sleeper = "EVENT:\n  INC(PAR_2)\n  CPU_SLEEP(1000)\n"
    low = write_source(tmp_path, sleeper, number=2, priority="Low", name="b.bas")
    system = system_with(high, low, model=model())
    system.start(2)
    system.start(1)
    system.run_until_cycle(10_000)
    assert times(system, 10) == list(range(300, 3_001, 300))
    assert system.memory.par[2] == 4


def test_the_hardware_can_pause_at_an_edge(tmp_path):
    hardware = InMemoryHardware(on_edge=lambda edge: system.pause())
    body = "INIT:\n  P2_DIGPROG(1, 1111b)\nEVENT:\n  INC(PAR_1)\n"
    body += "  IF (PAR_1 = 4) THEN P2_DIGOUT(1, 0, 1)\n"
    system = system_with(write_source(tmp_path, body), hardware=hardware, model=model())
    system.start(1)
    assert system.run_until_cycle(100_000) == 1_200
    assert system.memory.par[1] == 4
    assert system.run_until_cycle(3_001) == 3_001
    assert system.memory.par[1] == 10


def test_stop_runs_finish(tmp_path):
    body = "EVENT:\n  INC(PAR_1)\nFINISH:\n  PAR_2 = PAR_1\nLOWFINISH:\n  PAR_3 = PAR_2 + 1\n"
    system = system_with(write_source(tmp_path, body))
    system.start(1)
    system.run_for_ns(5_500)
    system.stop(1)
    system.run_for_ns(5_000)
    assert system.memory.par[1:4] == [5, 5, 6]


def test_variables_outlive_an_event_and_a_stop(tmp_path):
    body = "DIM n AS LONG\nDIM a[2] AS LONG\nEVENT:\n  INC(n)\n  a[2] = n\n  PAR_1 = a[2]\n"
    system = system_with(write_source(tmp_path, body))
    for _ in range(2):
        system.start(1)
        system.run_for_ns(3_100)
        system.stop(1)
    assert system.memory.par[1] == 6


# --- memory --------------------------------------------------------------------------------


def test_data_is_shared_if_declared_alike(tmp_path):
    first = write_source(tmp_path, "DIM DATA_1[9] AS LONG\nINIT:\n  DATA_1[3] = 5\n", name="a.bas")
    body = "DIM DATA_1[9] AS LONG\nINIT:\n  PAR_1 = DATA_1[3]\n"
    second = write_source(tmp_path, body, number=2, name="b.bas")
    system = system_with(first, second)
    system.start(1)
    system.start(2)
    assert system.memory.par[1] == 5
    other = write_source(tmp_path, body.replace("[9]", "[8]"), number=3, name="c.bas")
    with pytest.raises(MemoryExceeded, match="declared otherwise by process 1"):
        system.load(transpile_file(other, system.model))


def test_memory_is_bounded(tmp_path):
    body = "DIM DATA_1[20000] AS LONG AT EM_LOCAL\nDIM x[10] AS FLOAT\nINIT:\n  PAR_1 = 1\n"
    settings = ProcessorModel(memory_bytes={2: 100_000, 3: 1_000, 4: 1_000})
    system = system_with(write_source(tmp_path, body), model=settings)
    assert [system.memory.free(kind) for kind in (2, 3, 4)] == [20_000, 960, 1_000]
    system.clear(1)
    assert system.memory.free(2) == 100_000
    too_long = write_source(tmp_path, body.replace("20000", "30000"))
    with pytest.raises(MemoryExceeded, match="need 120000 bytes of memory 2, and 100000 are free"):
        system.load(transpile_file(too_long, system.model))


# --- modules in memory ---------------------------------------------------------------------


class Steady:
    """A pulse every 10 cycles at counter 2 of module 1, while its light is on."""

    def __init__(self):
        self.on = False

    def emit(self, start_cycle, stop_cycle):
        return {(1, 2): (stop_cycle // 10 - start_cycle // 10) * self.on}

    def dac_changed(self, cycle, module, channel, code):
        self.on = code > 40_000


def test_counters_count_while_enabled_and_lit():
    hardware = InMemoryHardware(Steady())
    hardware.p2_cnt_enable(0, 1, 0b10)
    hardware.p2_dac(1_000, 3, 1, 50_000)
    assert hardware.p2_cnt_read(1_500, 1, 2) == 50
    hardware.p2_cnt_latch(2_000, 1, 0b10)
    assert hardware.p2_cnt_read(3_000, 1, 2) == 200
    assert hardware.p2_cnt_read_latch(3_000, 1, 2) == 100
    hardware.p2_cnt_clear(3_000, 1, 0b01)
    hardware.p2_dac(3_500, 3, 1, 32_768)
    assert hardware.p2_cnt_read(9_000, 1, 2) == 250
    hardware.p2_dac(9_000, 3, 1, 50_000)
    hardware.p2_cnt_enable(9_500, 1, 0)
    assert hardware.p2_cnt_read(20_000, 1, 2) == 300
    hardware.p2_cnt_clear(20_000, 1, 0b10)
    assert hardware.p2_cnt_read(20_000, 1, 2) == 0


def test_inputs_change_when_scheduled_and_edges_are_kept():
    hardware = InMemoryHardware()
    hardware.p2_digprog(0, 1, 0b0001)
    hardware.schedule_input(40, 1, 3, True)  # an output, which nothing drives from outside
    hardware.schedule_input(300, 1, 31, True)
    hardware.schedule_input(100, 1, 9, True)
    hardware.schedule_input(200, 1, 9, False)
    assert hardware.p2_digin_long(50, 1) == 0
    assert hardware.p2_digin_long(150, 1) == 1 << 9
    assert hardware.p2_digin_edge(400, 1, 1) == (1 << 31 | 1 << 9) - (1 << 32)
    assert hardware.p2_digin_edge(400, 1, 0) == 1 << 9
    assert hardware.p2_digin_edge(400, 1, 1) == 0
    assert hardware.p2_digin_long(400, 1) == -(1 << 31)


def test_outputs_are_logged():
    hardware = InMemoryHardware()
    hardware.p2_digprog(0, 4, 0b1001)
    hardware.p2_digout_long(10, 4, -1)
    hardware.p2_digout(20, 4, 31, 0)
    hardware.p2_digout(30, 4, 31, 0)
    hardware.p2_digout_bits(40, 4, 0, 0xF)
    words = [(edge.cycle, edge.module, edge.word) for edge in hardware.edges]
    assert words == [(10, 4, 0xFF0000FF), (20, 4, 0x7F0000FF), (40, 4, 0x7F0000F0)]
    assert hardware.output_word(4) == 0x7F0000F0
    assert hardware.output_word(5) == 0


def test_the_adc_reads_what_is_there(tmp_path):
    hardware = InMemoryHardware()
    hardware.adc_codes[2, 3] = 40_000
    path = write_source(tmp_path, "INIT:\n  PAR_1 = P2_ADC(2, 3)\n  PAR_2 = P2_ADC(2, 4)\n")
    system = system_with(path, hardware=hardware)
    system.start(1)
    assert system.memory.par[1:3] == [40_000, 32_768]


def test_the_spi_slave_has_a_bound():
    hardware = InMemoryHardware(spi_fifo_words=2)
    with pytest.raises(HardwareFault, match="not a slave"):
        hardware.spi_exchange(7, 1)
    hardware.p2_spi_slave_config(0, 7, 0)
    assert hardware.spi_exchange(7, 0xFFFFFFFF) is None
    hardware.spi_exchange(7, 2)
    with pytest.raises(HardwareFault, match="leaves words from us unread"):
        hardware.spi_exchange(7, 3)
    assert hardware.p2_spi_slave_infifo_read(0, 7) == -1
    for word in (-5, 6):
        hardware.p2_spi_slave_outfifo_write(0, 7, word)
    assert hardware.p2_spi_slave_outfifo_empty(0, 7) == 0
    with pytest.raises(HardwareFault, match="FIFO is full"):
        hardware.p2_spi_slave_outfifo_write(0, 7, 7)
    assert hardware.spi_exchange(7, 0) == 0xFFFFFFFB


def test_init_takes_time(tmp_path):
    system = run_init(tmp_path, "INIT:\n  CPU_SLEEP(1000)\nEVENT:\n  INC(PAR_1)\n")
    system.run_for_ns(10_900)
    assert system.memory.par[1] == 0
    system.run_for_ns(200)
    assert system.memory.par[1] == 1
    assert PROGRAMS.is_dir()
