"""The laboratory in real time does what its devices would do in virtual time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.assembly import NetworkConfig, build_devices
from qnodeos.errors import ChannelError
from qnodeos.qdevice import instructions
from qnodeos.qdevice.endpoint import FrameMaster
from qnodeos.qdevice.frames import encode_command, session_word
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from sim.link import LinkParameters
from sim.noise import NVNoise
from sim.realtime.laboratory import MAX_AHEAD_TICKS, MAX_COMMANDS_PER_TURN, RealTimeLaboratory
from tests.service.realtime_bench import (
    EPOCH_NS,
    MAX_TICKS,
    NAMES,
    TICK_NS,
    Clock,
    MemoryPort,
    Step,
    laboratory,
    run_directly,
    run_in_real_time,
    run_late,
    two_devices,
)

WINDOW = 20
GRACE = 15
# A batch of 110 ticks that succeeds half the time. Mocked: which of two correlated qubits is
# measured first changes what the same random numbers give (see sim.realtime.laboratory).
SHORT = LinkParameters.fast(mocked=True).model_copy(
    update={"attempts_per_batch": 200, "sync_window_ticks": WINDOW}
)
SHORT = SHORT.model_copy(
    update={"protocol": LinkParameters.perfect(success_probability=0.0035).protocol}
)

INSTRUCTIONS = st.sampled_from(
    [
        instructions.ini(0),
        instructions.sqg(Axis.X, 8, 0),
        instructions.sqg(Axis.Y, 4, 0),
        instructions.msr(0),
        instructions.msr(3),
        instructions.ent(0, 0),
        instructions.ent(0, 0),
        instructions.enm(0, 0),
        instructions.ent(5, 0),
        instructions.pmg(Axis.X, 8, 0),
    ]
)
SCRIPT = st.lists(st.tuples(st.integers(0, 2 * WINDOW), INSTRUCTIONS), max_size=8)
SCRIPTS = st.fixed_dictionaries(dict.fromkeys(NAMES, SCRIPT))
SEEDS = st.integers(0, 1_000)


@settings(max_examples=60)
@given(scripts=SCRIPTS, seed=SEEDS)
def test_looking_ahead_gives_what_every_tick_gives(scripts, seed):
    direct = run_directly(two_devices(seed, SHORT)[0], scripts)
    served = run_in_real_time(two_devices(seed, SHORT)[0], scripts)
    assert served == direct


@settings(max_examples=60)
@given(scripts=SCRIPTS, seed=SEEDS, data=st.data())
def test_commands_that_come_late_within_the_grace_change_nothing(scripts, seed, data):
    direct = run_directly(two_devices(seed, SHORT)[0], scripts)
    responses = run_late(
        two_devices(seed, SHORT)[0],
        direct.commands,
        GRACE,
        lambda: data.draw(st.integers(0, GRACE - 1), label="lag"),
    )
    assert responses == direct.responses


@settings(max_examples=40)
@given(
    gaps=st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(0, 60))),
    seed=SEEDS,
    basis=st.sampled_from([None, Axis.X, Axis.Y]),
)
def test_a_pair_is_correlated_whoever_is_read_out_first(gaps, seed, basis):
    link = LinkParameters.perfect(success_probability=0.5)
    devices, between = two_devices(seed, link, NVNoise.noiseless())
    rotations = [] if basis is None else [(0, instructions.sqg(basis, 8, 0))]
    scripts: dict[str, list[Step]] = {
        name: [
            (0, instructions.ent(0, 0)),
            *rotations,
            (gaps[name], instructions.msr(0)),
        ]
        for name in NAMES
    }
    record = run_in_real_time(devices, scripts)
    assert between.heralds == 1
    bits = [record.outcomes[name][-1][1].outcome is Outcome.SUCCESS_ONE for name in NAMES]
    herald = record.outcomes["client"][0][1].outcome
    assert herald is record.outcomes["server"][0][1].outcome
    # Both Psi states are anticorrelated along Z. Along X and Y, Psi+ is correlated.
    anticorrelated = basis is None or herald is Outcome.SUCCESS_PSI_MINUS
    assert (bits[0] != bits[1]) is anticorrelated


@settings(max_examples=60)
@given(scripts=SCRIPTS, seed=SEEDS)
def test_what_is_known_at_once_is_done_in_the_order_of_time(scripts, seed):
    correlated = SHORT.model_copy(update={"mocked": False})
    direct = run_directly(two_devices(seed, correlated)[0], scripts)
    served, ports, clock = laboratory(two_devices(seed, correlated)[0], 10)
    clock.go_to(MAX_TICKS)
    for name in NAMES:
        ports[name].commands.extend(direct.commands[name])
    assert served.turn() is None
    assert {name: port.responses for name, port in ports.items()} == direct.responses


# --- one thing at a time ------------------------------------------------------------------


def in_session(grace_ticks: int = 10, link: LinkParameters = SHORT):
    """A laboratory whose two nodes have entered a session by tick 3."""
    served, ports, clock = laboratory(two_devices(1, link)[0], grace_ticks)
    masters = {name: FrameMaster() for name in NAMES}
    clock.go_to(1)
    for name in NAMES:
        ports[name].commands.append((1, masters[name].outgoing()))
    served.turn()
    for name in NAMES:
        masters[name].incoming(ports[name].at(2))
    return served, ports, clock, masters


def send(port: MemoryPort, master: FrameMaster, tick: int, instruction: PhysicalInstruction):
    master.submit(instruction)
    port.commands.append((tick, master.outgoing()))


def test_an_outcome_is_there_before_its_time():
    served, ports, clock, masters = in_session()
    clock.go_to(10)
    send(ports["client"], masters["client"], 10, instructions.msr(0))
    assert served.turn() is None
    due, frame = ports["client"].responses[-1]
    assert due == 10 + 20  # 191 us, and the tick after
    assert masters["client"].incoming(frame) is not None
    statistics = served.statistics["client"]
    assert (statistics.late_answers, statistics.lateness.read().maximum) == (0, 0)


def test_a_late_laboratory_dates_the_outcome_right_and_counts():
    served, ports, clock, masters = in_session()
    send(ports["client"], masters["client"], 10, instructions.msr(0))
    clock.go_to(45, further_ns=2_000)
    served.turn()
    assert ports["client"].responses[-1][0] == 30
    statistics = served.statistics["client"]
    assert statistics.late_answers == 1
    assert statistics.lateness.read().maximum == 15 * TICK_NS + 2_000
    assert statistics.lag.read().maximum == 35 * TICK_NS + 2_000


def test_a_lone_request_is_answered_after_the_grace():
    served, ports, clock, masters = in_session(grace_ticks=10)
    clock.go_to(100)
    send(ports["client"], masters["client"], 100, instructions.ent(0, 0))
    wake = served.turn()
    assert wake == 100 + 10  # to say that it is busy
    clock.go_to(wake)
    wake = served.turn()
    assert wake == 100 + WINDOW + 10
    clock.go_to(wake - 1)
    assert served.turn() == wake
    assert masters["client"].incoming(ports["client"].at(wake)) is None
    clock.go_to(wake)
    assert served.turn() is None
    assert ports["client"].responses[-1][0] == 100 + WINDOW + 1
    answer = masters["client"].incoming(ports["client"].at(wake))
    assert answer is not None
    assert answer.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
    assert served.statistics["client"].late_answers == 0


def test_a_request_from_before_a_failure_that_was_told_finds_no_partner():
    served, ports, clock, masters = in_session(grace_ticks=2)
    send(ports["client"], masters["client"], 100, instructions.ent(0, 0))
    clock.go_to(140)
    served.turn()
    assert masters["client"].incoming(ports["client"].at(140)) is not None
    # It was on its way for longer than the grace: at 110, the two would have met.
    send(ports["server"], masters["server"], 110, instructions.ent(0, 0))
    served.turn()
    failure = 100 + WINDOW + 1
    clock.go_to(failure + WINDOW + 1 + 2)
    assert served.turn() is None
    answer = masters["server"].incoming(ports["server"].at(200))
    assert answer is not None
    assert answer.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
    assert ports["server"].responses[-1][0] == failure + WINDOW + 1
    assert served.statistics["server"].moved_commands == 1
    assert ports["client"].responses[-1][0] == failure


def test_a_batch_is_announced_ahead_to_both():
    served, ports, clock, masters = in_session()
    clock.go_to(100)
    send(ports["client"], masters["client"], 100, instructions.ent(0, 0))
    served.turn()
    clock.go_to(105)
    send(ports["server"], masters["server"], 104, instructions.ent(0, 0))
    assert served.turn() is None
    ends = {ports[name].responses[-1][0] for name in NAMES}
    assert len(ends) == 1
    assert ends.pop() > 105
    for name in NAMES:
        assert masters[name].incoming(ports[name].at(300)) is not None


def test_a_restarted_qnpu_enters_its_session_after_the_instruction_at_hand():
    served, ports, clock, masters = in_session()
    clock.go_to(10)
    send(ports["client"], masters["client"], 10, instructions.msr(0))
    served.turn()
    successor = FrameMaster(session=7)
    clock.go_to(15)
    ports["client"].commands.append((15, successor.outgoing()))
    served.turn()
    assert successor.has_news
    for tick in range(16, 40):
        assert successor.incoming(ports["client"].at(tick)) is None
    assert not successor.has_news
    send(ports["client"], successor, 40, instructions.ini(0))
    clock.go_to(40)
    served.turn()
    answer = successor.incoming(ports["client"].at(42))
    assert answer is not None
    assert answer.outcome is Outcome.SUCCESS_ZERO


def test_a_command_from_a_tick_that_cannot_be_is_counted_and_carried_out_now():
    served, ports, clock, masters = in_session()
    clock.go_to(50)
    send(ports["client"], masters["client"], 51 + MAX_AHEAD_TICKS, instructions.ini(0))
    served.turn()
    assert served.statistics["client"].misdated_commands == 1
    assert ports["client"].responses[-1][0] == 52


def test_a_flood_of_one_node_leaves_the_other_its_turn():
    served, ports, clock, masters = in_session()
    clock.go_to(500)
    number = 3 * MAX_COMMANDS_PER_TURN
    for count in range(number):
        ports["client"].commands.append(
            (100 + count, encode_command(session_word(count % 16), 0, 0))
        )
    send(ports["server"], masters["server"], 499, instructions.ini(0))
    assert served.turn() == 500
    assert len(ports["client"].commands) == number - MAX_COMMANDS_PER_TURN
    assert masters["server"].incoming(ports["server"].at(501)) is not None
    while served.turn() is not None:
        pass
    assert not ports["client"].commands
    assert served.statistics["client"].commands == number + 1


def test_a_qnpu_that_takes_no_responses_stops_only_itself(monkeypatch):
    served, ports, clock, masters = in_session()

    def refuse(from_tick: int, frame: int) -> None:
        raise ChannelError("it takes no responses")

    monkeypatch.setattr(ports["client"], "respond", refuse)
    clock.go_to(50)
    for name in NAMES:
        send(ports[name], masters[name], 50, instructions.ini(0))
    served.turn()
    assert served.statistics["client"].untaken_responses == 2
    assert masters["server"].incoming(ports["server"].at(52)) is not None


def test_a_new_qnpu_that_takes_no_responses_stops_only_itself(monkeypatch):
    served, ports, clock, masters = in_session()
    receive = ports["client"].receive

    def refuse() -> None:
        raise ChannelError("it takes no responses")

    monkeypatch.setattr(ports["client"], "receive", refuse)
    clock.go_to(50)
    for name in NAMES:
        send(ports[name], masters[name], 50, instructions.ini(0))
    served.turn()
    assert masters["server"].incoming(ports["server"].at(52)) is not None
    assert served.statistics["client"].failed_greetings == 1
    assert served.statistics["client"].summary()["failed_greetings"] == 1
    monkeypatch.setattr(ports["client"], "receive", receive)
    served.turn()
    assert masters["client"].incoming(ports["client"].at(52)) is not None


def test_devices_of_one_laboratory_have_one_tick():
    with pytest.raises(ValueError, match="one tick"):
        RealTimeLaboratory({}, EPOCH_NS, Clock())


def test_devices_at_instrument_level_are_looked_ahead_to_as_well():
    scripts: dict[str, list[Step]] = {
        "client": [
            (0, instructions.ini(0)),
            (3, instructions.sqg(Axis.X, 16, 0)),
            (0, instructions.msr(0)),
            (5, instructions.ent(0, 0)),
            (0, instructions.ini(0)),
        ],
        "server": [(2, instructions.msr(0)), (7, instructions.ini(0)), (0, instructions.msr(4))],
    }
    config = NetworkConfig.preset("fast")
    records = []
    for run in (run_directly, run_in_real_time):
        with ExitStack() as cleanup:
            devices = build_devices(config, 3, cleanup, "instrument").devices
            records.append(run(devices, scripts))
    direct, served = records
    assert served.outcomes == direct.outcomes
    assert [len(served.outcomes[name]) for name in NAMES] == [5, 3]
    assert served.outcomes["client"][3][1].outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
