"""The pulse sequencer passes over waits and idle loops without changing a cycle."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sequences.ion import IonSequenceSettings, ion_program
from sequences.sequencer_assembler import assemble
from sequences.sequencer_isa import Instruction, Op, encode
from sim.ion.sequencer import CoreState, SequencerCore
from sim.ion.sequencer_thread import PulseSequencerFault
from tests.sim.naive_sequencer import Fault, NaiveSequencer

LAST = 11
"""Labels l0 to l11."""

labels = st.integers(0, LAST).map(lambda n: f"l{n}")
registers = st.integers(0, 2).map(lambda n: f"r{n}")
levels = st.sampled_from(["", "!"])
plain = st.one_of(
    st.just("nop"),
    st.builds("p {}, {}".format, st.integers(0, 3), st.integers(0, 3)),
    st.builds("ldc {}, {}".format, registers, st.integers(1, 4)),
)
slotted = st.one_of(
    st.builds("btr{{}} {}{}, {}".format, levels, st.integers(0, 1), labels),
    st.builds("j{{}} {}".format, labels),
    st.builds("call{{}} {}".format, labels),
    st.builds("bdec{{}} {}, {}".format, registers, labels),
    st.just("ret{}"),
)
filled = st.builds(
    lambda branch, slots: [branch.format(".s"), *slots],
    slotted,
    st.one_of(
        st.lists(plain, min_size=5, max_size=5),
        st.builds(
            lambda place, line: ["nop"] * place + [line] + ["nop"] * (4 - place),
            st.integers(0, 4),
            plain,
        ),
    ),
)
statements = st.one_of(
    plain.map(lambda line: [line]),
    plain.map(lambda line: [line]),
    slotted.map(lambda line: [line.format("")]),
    filled,
    st.integers(1, 40).map(lambda n: [f"wait {n}"]),
    st.integers(0, LAST).map(lambda n: [f"spin{n}"]),
)


@st.composite
def programs(draw):
    lines = []
    for number in range(LAST):
        lines.append(f"l{number}:")
        for statement in draw(st.lists(statements, min_size=0, max_size=3)):
            if statement[0].startswith("spin"):
                own = f"s{len(lines)}"
                lines.append(f"{own}: btr {draw(levels)}{draw(st.integers(0, 1))}, {own}")
            else:
                lines += statement
    lines += [f"l{LAST}:", draw(st.sampled_from(["halt", "j l0"]))]
    return assemble("\n".join(lines)).words


word_fields = {
    "address": st.integers(0, 13),
    "register": st.integers(0, 1),
    "value": st.integers(1, 9),
}


@st.composite
def any_words(draw):
    """Programs that break every rule: some word soon is where it must not be."""
    words = []
    for _ in range(draw(st.integers(1, 12))):
        op = draw(st.sampled_from([*Op, *[Op.NOP] * 8]))
        names = {
            Op.J: ["address"],
            Op.CALL: ["address"],
            Op.WAIT: ["value"],
            Op.BDEC: ["address", "register"],
            Op.LDC: ["register", "value"],
            Op.P: ["value"],
            Op.BTR: ["address"],
        }.get(op, [])
        drawn = {name: draw(word_fields[name]) for name in names}
        words.append(encode(Instruction(op, mask=int(op is Op.BTR), **drawn)))
    return (*words, draw(st.sampled_from([0, 0x10000000, 0x80000000])))


inputs = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 3), st.booleans()), max_size=12)


def naive_run(words, schedule):
    """Changes of the outputs, and how it ended: at what time, if with a fault."""
    naive, value, time_ns = NaiveSequencer(words), 0, 0
    try:
        for delay_ns, new_value, _ in schedule:
            time_ns += delay_ns
            naive.run(time_ns // 10 + 1, value)
            value = new_value
    except Fault:
        return naive.changes, (CoreState.FAULT, naive.cycle * 10, naive.address)
    end = CoreState.HALTED if naive.halted else CoreState.RUNNING
    return naive.changes, (end, time_ns, None)


def core_run(words, schedule):
    core, changes, time_ns = SequencerCore(words), [], 0
    core.on_ttl(lambda *change: changes.append(change))
    expected = None
    try:
        for delay_ns, new_value, asking in schedule:
            time_ns += delay_ns
            if asking:
                expected = core.next_change_ns()
                known, state = len(changes), core.state
                core.run_to((core.time_ns + time_ns) // 2)
                core.run_to(time_ns)
                first = changes[known][0] if len(changes) > known else None
                if state is CoreState.RUNNING:
                    due = expected is not None and expected <= time_ns
                    assert first == (expected if due else None)
            core.set_trigger(time_ns, new_value)
    except PulseSequencerFault as fault:
        assert core.state is CoreState.FAULT
        address = int(str(fault).split(",")[0].removeprefix("address "))
        return changes, (core.state, core.time_ns, address)
    return changes, (core.state, time_ns, None)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(programs(), inputs)
def test_programs_run_as_cycle_by_cycle(words, schedule):
    schedule = [*schedule, (2_000, 0, False)]
    assert core_run(words, schedule) == naive_run(words, schedule)


@settings(max_examples=250, deadline=None)
@given(any_words(), inputs)
@example((0x90000005, 0, 0, 0xC0000001, 0, 0, 0), [])
@example((0x40000000, 0, 0, 0x40000000, 0, 0), [])
@example((0x80000000,), [])
def test_what_is_not_documented_is_the_same_fault(words, schedule):
    schedule = [*schedule, (2_000, 0, False)]
    assert core_run(words, schedule) == naive_run(words, schedule)


quick = IonSequenceSettings(
    doppler_us=180, reset_854_us=3, pump_us=2, sideband_cycles=3, sideband_us=5, pi_time_ns=1_000,
    detection_us=7, update_ns=40, done_ns=50,
)  # fmt: skip
strobes = st.lists(
    st.tuples(st.sampled_from([0, 13, 60, 400, 30_000]), st.integers(0, 15), st.booleans()),
    max_size=16,
)


@settings(max_examples=40, deadline=None)
@given(strobes)
def test_the_ion_program_runs_as_cycle_by_cycle(schedule):
    words = ion_program(quick).words
    schedule = [*schedule, (250_000, 0, False)]
    assert core_run(words, schedule) == naive_run(words, schedule)
