"""What the simulated pulse sequencer does with its inputs, its program and its faults."""

from __future__ import annotations

import pytest

from sequences.sequencer_assembler import assemble
from sim.ion import sequencer
from sim.ion.sequencer import CoreState, SequencerCore
from sim.ion.sequencer_thread import PulseSequencerFault
from tests.sim.naive_sequencer import NaiveSequencer

SPIN = "idle: btr !0, idle\np 0, 1\nend: j end"


def core_of(source):
    core = SequencerCore(assemble(source).words)
    changes = []
    core.on_ttl(lambda *change: changes.append(change))
    return core, changes


def test_every_output_has_its_cycle():
    core, changes = core_of("p 0, 5\np 3, 0x8000\nwait 10\np 0, 4\nhalt")
    core.run_to(180)
    assert changes == [(0, 0, 5), (10, 5, 5 | 1 << 63), (180, 5 | 1 << 63, 4 | 1 << 63)]
    assert (core.ttl, core.state) == (4 | 1 << 63, CoreState.RUNNING)
    core.run_to(190)
    assert core.state is CoreState.HALTED
    core.run_to(10**12)
    assert len(changes) == 3


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("branch", ["j.s end", "btr.s !0, end", "btr.s 0, end", "call.s end"])
@pytest.mark.parametrize("slot", ["p 0, 9", "ldc r0, 3"])
def test_slots_of_the_caller_are_executed_wherever_they_are(position, branch, slot):
    slots = ["nop"] * 5
    slots[position] = slot
    source = ["ldc r0, 1", branch, *slots, "p 1, 1", "end: p 1, 2", "bdec r0, end", "halt"]
    core, changes = core_of("\n".join(source))
    core.run_to(1_000)
    naive = NaiveSequencer(core.words)
    naive.run(101, 0)
    assert changes == naive.changes
    assert core.state is CoreState.HALTED


def test_inputs_are_seen_from_the_next_cycle_on():
    core, changes = core_of(SPIN)
    core.set_trigger(600, 1)
    core.run_to(2_000)
    assert changes == [(720, 0, 1)]  # not in the cycle at 600, but in the next turn, at 660
    core, changes = core_of(SPIN)
    core.set_trigger(599, 1)
    core.run_to(2_000)
    assert changes == [(660, 0, 1)]
    core, changes = core_of(SPIN)
    core.set_trigger(595, 1)
    core.set_trigger(599, 0)
    core.run_to(2_000)
    assert changes == []


def test_the_next_change_is_told_and_nothing_else_happens_before():
    core, changes = core_of("p 0, 1\nwait 100\np 0, 1\np 0, 2\n" + SPIN)
    assert core.next_change_ns() == 0
    core.run_to(0)
    assert core.next_change_ns() == 1_080
    core.run_to(1_079)
    assert (len(changes), core.next_change_ns()) == (1, 1_080)
    core.run_to(1_080)
    assert changes[-1] == (1_080, 1, 2)
    assert core.is_idle
    assert core.next_change_ns() is None
    core.set_trigger(1_500, 1)
    assert not core.is_idle
    assert core.next_change_ns() == 1_570  # looked at in 1510
    core.run_to(10_000)
    assert changes[-1] == (1_570, 2, 1)
    assert core.is_idle


def test_a_program_that_shows_nothing_is_followed_for_a_while(monkeypatch):
    monkeypatch.setattr(sequencer, "LOOK_AHEAD_STEPS", 20)
    core, changes = core_of("ldc r0, 100\nl: bdec r0, l\np 0, 1\nend: j end")
    times = []
    while (time_ns := core.next_change_ns()) is not None:
        times.append(time_ns)
        core.run_to(time_ns)
    assert len(times) == 5
    assert changes == [(times[-1], 0, 1)] == [(10 * (1 + 100 * 6), 0, 1)]


def test_a_year_of_idling_is_no_work():
    core, changes = core_of(SPIN)
    core.set_trigger(365 * 86_400 * 10**9, 1)
    core.run_to(366 * 86_400 * 10**9)
    assert len(changes) == 1


@pytest.mark.parametrize(
    ("source", "message", "time_ns"),
    [
        ("ldc r0, 1\nbdec r0, l\nl: bdec r0, l\nhalt", "bdec of r0, which is 0", 70),
        ("ret\nhalt", "ret without a call", 0),
        ("l: call l\nhalt", "more than 8 calls within calls", 480),
    ],
)
def test_faults_have_address_and_time(source, message, time_ns):
    core, _ = core_of(source)
    if time_ns:
        core.run_to(time_ns - 1)
    with pytest.raises(
        PulseSequencerFault, match=rf"address \d+, cycle {time_ns // 10}: {message}"
    ):
        core.run_to(100_000)
    assert (core.state, core.time_ns) == (CoreState.FAULT, time_ns)
    with pytest.raises(PulseSequencerFault, match=message):
        core.run_to(200_000)
    assert core.next_change_ns() is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([0xC0000001], "address 1, cycle 1: the program ran off its end"),
        ([0x40000009, 0, 0, 0, 0, 0], "address 9, cycle 6: the program ran off its end"),
        ([0x40000000, 0, 0], "address 3, cycle 3: the program ran off its end"),
        ([0, 0x10000000], "address 1, cycle 1: word 0x10000000 has an unknown opcode"),
        ([0x90004001], "address 0, cycle 0: word 0x90004001 sets bits"),
        ([0x30180000], "address 0, cycle 0: btr with mask 0x3"),
        ([0x40000000, 0, 0x80000000], "address 2, cycle 2: halt is in a delay slot of j"),
        ([0x90000002, 0xC0000001], "address 1, cycle 3: p is in a delay slot of wait"),
    ],
)
def test_what_no_assembler_makes_is_a_fault(words, message):
    core = SequencerCore(words)
    due = core.next_change_ns()
    with pytest.raises(PulseSequencerFault, match=message):
        core.run_to(1_000)
    assert core.time_ns == 10 * int(message.split("cycle ")[1].split(":")[0])
    assert due is not None
    assert due <= core.time_ns


def test_a_callback_may_answer_at_once():
    core, changes = core_of("p 0, 1\n" + SPIN)
    core.on_ttl(lambda time_ns, before, after: core.set_trigger(time_ns, 1 if after == 1 else 0))
    core.run_to(1_000)
    assert changes == [(0, 0, 1)]
    core, changes = core_of("p 0, 3\nbtr 0, l\nhalt\nl: p 0, 7\nhalt")
    core.on_ttl(lambda time_ns, before, after: core.set_trigger(time_ns, 1))
    core.run_to(1_000)
    assert changes == [(0, 0, 3), (70, 3, 7)]


@pytest.mark.parametrize(
    "act",
    [
        lambda core, time_ns: core.run_to(time_ns + 10),
        lambda core, time_ns: core.set_trigger(time_ns + 1, 1),
        lambda core, time_ns: core.stop(),
        lambda core, time_ns: core.start(),
    ],
)
def test_a_callback_cannot_do_more_than_that(act):
    core, _ = core_of("p 0, 1\nhalt")
    core.on_ttl(lambda time_ns, before, after: act(core, time_ns))
    with pytest.raises(ValueError, match="callback"):
        core.run_to(0)


def test_start_and_stop():
    core = SequencerCore()
    with pytest.raises(ValueError, match="no program"):
        core.start()
    core.run_to(1_234)
    assert (core.state, core.next_change_ns(), core.is_idle) == (CoreState.EMPTY, None, False)
    core.load(assemble("p 0, 1\nwait 50\np 0, 2\nhalt").words)
    assert core.state is CoreState.STOPPED
    changes = []
    core.on_ttl(lambda *change: changes.append(change))
    core.start()
    assert core.next_change_ns() == 1_240
    with pytest.raises(ValueError, match="stop it before"):
        core.load([0])
    core.run_to(1_500)
    core.stop()
    core.run_to(5_000)
    assert changes == [(1_240, 0, 1), (1_500, 1, 0)]
    core.start()
    core.run_to(10_000)
    assert [change[0] for change in changes[2:]] == [5_010, 5_580]
    assert core.state.name == "HALTED"
    core.load(())
    assert core.state.name == "EMPTY"


def test_a_stopped_fault_can_start_again():
    core = SequencerCore([0xC0000001])
    with pytest.raises(PulseSequencerFault):
        core.run_to(100)
    core.load(assemble("p 0, 2\nhalt").words)
    core.start()
    core.run_to(200)
    assert (core.ttl, core.fault) == (2, "")


def test_nonsense_is_refused():
    core = SequencerCore(assemble(SPIN).words)
    core.run_to(100)
    for act, message in [
        (lambda: core.run_to(99), "has passed"),
        (lambda: core.set_trigger(99, 1), "has passed"),
        (lambda: core.set_trigger(200, 512), "more than 9 inputs"),
        (lambda: core.set_software_trigger(-1), "more than 9 inputs"),
        (lambda: SequencerCore([1 << 32]), "more than 32 bits"),
        (lambda: SequencerCore([0] * (2**18 + 1)), "do not fit into 262144"),
    ]:
        with pytest.raises(ValueError, match=message):
            act()


def test_software_holds_inputs_high():
    core, changes = core_of("a: btr !0, a\np 0, 1\nb: btr 0, b\np 0, 2\nhalt")
    core.run_to(1_000)
    core.set_software_trigger(1)
    core.run_to(2_000)
    core.set_trigger(2_000, 1)
    core.set_software_trigger(0)
    core.run_to(3_000)
    assert (core.ttl, core.inputs) == (1, 1)
    core.set_trigger(3_000, 0)
    core.run_to(4_000)
    assert [value for _, _, value in changes] == [1, 2]
