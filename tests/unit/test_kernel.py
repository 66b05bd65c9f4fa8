"""The kernel as its host and its clock see it: replies, memory, scheduling, time."""

from __future__ import annotations

import itertools

import pytest

from qnodeos.api.host import ArrayResult, HostReply, RegisterResult
from qnodeos.api.peer import Cancel
from qnodeos.errors import PeerProtocolError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import ini, msr
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qnpu.process import ProcessState
from qnodeos.trace.events import Event
from tests.unit.kernel_harness import Lab, Node, make_node, solo
from tests.unit.kernel_programs import create_epr, init_app, open_socket, register, stop_app, submit

LOCAL = "qalloc Q0\ninit Q0\nmeas Q0 M0\nqfree Q0\nret_reg M0\n"
THREE = "".join(f"set Q0 {i}\nqalloc Q0\n" for i in range(3))


@pytest.fixture
def node() -> Node:
    return make_node()


@pytest.fixture
def lab(node: Node) -> Lab:
    return solo(node)


def test_a_program_from_start_to_end(node, lab):
    node.device.measurements.append(1)
    first = node.post(init_app(0))
    request = node.post(submit(0, LOCAL))
    lab.run(20)
    last = node.post(stop_app(0))
    lab.run(5)
    assert node.device.instructions == [ini(0), msr(0)]
    assert node.replies[first] == HostReply(1, first)
    assert node.replies[request] == HostReply(
        1, request, (RegisterResult(register("M0"), 1),), serial=0
    )
    assert node.replies[last] == HostReply(1, last)
    lab.check_clean()


def test_registers_and_arrays_persist_over_subroutines_and_serials_count(node, lab):
    node.post(init_app(0))
    first = node.post(submit(0, "set R3 7\narray 2 @4\nstore R3 @4[1]\n"))
    second = node.post(submit(0, "ret_reg R3\nret_arr @4\n"))
    lab.run(10)
    assert [node.replies[request].serial for request in (first, second)] == [0, 1]
    assert node.results(second) == (
        RegisterResult(register("R3"), 7),
        ArrayResult(4, (None, 7)),
    )


def test_programs_share_nothing_but_the_device(node, lab):
    """Not even if they have the same application id, on different connections."""
    for client in (1, 2):
        node.post(init_app(0), client)
    node.post(submit(0, "set R0 5\n" + "qalloc Q0\n"), 1)
    other = node.post(submit(0, "ret_reg R0\n" + LOCAL), 2)
    lab.run(10)
    assert node.values(other) == [0, 0]
    assert node.device.instructions[0] == ini(1)


def test_an_empty_subroutine(node, lab):
    node.post(init_app(0))
    request = node.post(submit(0, b""))
    lab.run(3)
    assert node.results(request) == ()


def test_first_come_first_served_between_processes(node, lab):
    for app in range(3):
        node.post(init_app(app))
    order = [node.post(submit(app, LOCAL)) for app in (2, 0, 1, 0)]
    lab.run(30)
    replied = [request for request in node.replies if request in order]
    assert replied == order
    starts = [record.pid for record in node.trace.events(Event.PROCESSOR_START_USER_PROCESS)]
    assert starts == [3, 1, 2, 1]


def test_a_long_loop_goes_on_at_the_next_tick(node, lab):
    """And other programs wait: the scheduler is non-pre-emptive."""
    node.post(init_app(0))
    node.post(init_app(1))
    rounds = 12_000
    loop = f"set R0 0\nset R1 {rounds}\nset R2 1\nL:\nadd R0 R0 R2\nblt R0 R1 L\nret_reg R0\n"
    long, short = node.post(submit(0, loop)), node.post(submit(1, "ret_reg R0"))
    lab.run(1)
    assert long not in node.replies
    [process] = [p for p in node.kernel.processes.values() if p.state is ProcessState.RUNNING]
    assert 0 < process.memory.registers[0] < rounds
    assert node.next_tick == lab.tick + 1
    lab.run(1)
    assert short not in node.replies
    lab.run(1)
    assert node.values(long) == [rounds]
    assert node.values(short) == [0]


def test_one_instruction_is_outstanding_at_a_time(node, lab):
    node.device.ticks = 50
    for app in range(2):
        node.post(init_app(app))
        node.post(submit(app, LOCAL))
    lab.run(500)
    ticks = [tick for tick, _ in node.device.log]
    assert all(later - tick >= 50 for tick, later in itertools.pairwise(ticks))
    assert len(ticks) == 4


def test_dispatching_a_user_process_may_take_time():
    node = make_node(dispatch_ticks=20)
    lab = solo(node)
    node.post(init_app(0))
    request = node.post(submit(0, LOCAL))
    lab.run(20)
    assert node.device.log == []
    assert node.next_tick == 20
    lab.run(1)
    assert node.device.log == [(20, ini(0))]
    lab.run(20)
    assert node.replies[request].error is None


@pytest.mark.parametrize("how", ["qfree", "stop", "close", "abort"])
def test_a_process_that_waits_for_a_qubit_is_woken(node, lab, how):
    """However the qubit becomes free, and if nothing else happens afterwards."""
    for client in (1, 2):
        node.post(init_app(0), client)
    node.post(submit(0, THREE), 1)
    waits = node.post(submit(0, LOCAL), 2)
    lab.run(20)
    assert waits not in node.replies
    [process] = [p for p in node.kernel.processes.values() if p.owner[0] == 2]
    assert "a free physical qubit" in process.execution.waiting_for
    if how == "qfree":
        node.post(submit(0, "set Q0 1\nqfree Q0\n"), 1)
    elif how == "stop":
        node.post(stop_app(0), 1)
    elif how == "close":
        node.close(1)
    else:
        node.post(submit(0, "div R0 R0 R1\n"), 1)
    lab.run(20)
    assert node.values(waits) == [0]
    lab.check_clean()


def test_several_wait_for_qubits_and_all_get_one(node, lab):
    for client in range(4):
        node.post(init_app(0), client)
    node.post(submit(0, THREE), 0)
    waits = [node.post(submit(0, LOCAL), client) for client in (3, 1, 2)]
    lab.run(20)
    node.close(0)
    lab.run(20)
    assert [node.values(request) for request in waits] == [[0]] * 3
    lab.check_clean()


@pytest.mark.parametrize("ending", ["stop", "close"])
@pytest.mark.parametrize("outcome", [Outcome.SUCCESS_ONE, Outcome.HARDWARE_FAILURE])
def test_an_outcome_for_a_process_that_has_ended_is_nobodys(node, lab, ending, outcome):
    node.device.ticks = 30
    node.post(init_app(0), 1)
    node.post(init_app(0), 2)
    aborted = node.post(submit(0, LOCAL), 1)
    lab.run(5)
    assert node.device.busy == ini(0)
    node.device.due_tick = 40
    if ending == "stop":
        node.post(stop_app(0), 1)
    else:
        node.close(1)
    other = node.post(submit(0, LOCAL), 2)
    lab.run(5)
    assert node.error(aborted).kind == "UnknownProcessError"
    assert node.device.instructions == [ini(0)], "the device is busy until it answers"
    node.device.answer = node.device.answer._replace(outcome=outcome)
    lab.run(200)
    assert node.values(other) == [0]
    consumed = node.trace.events(Event.PROCESSOR_CONSUME_OUTCOME)
    assert (consumed[0].tick, consumed[0].pid) == (40, 0)
    assert node.device.instructions == [ini(0), ini(0), msr(0)]
    lab.check_clean()


def test_stopping_answers_every_subroutine_once(node, lab):
    node.device.ticks = 30
    node.post(init_app(0))
    owed = [node.post(submit(0, LOCAL)) for _ in range(3)]
    lab.run(3)
    stop = node.post(stop_app(0))
    lab.run(3)
    assert [node.error(request).subroutine for request in owed] == [0, 1, 2]
    assert {node.error(request).pc for request in owed} == {None}
    assert node.replies[stop].error is None
    aborted = node.trace.events(Event.PROCMGR_SUBROUTINE_ABORTED)
    assert [record.detail for record in aborted] == [0, 1, 2]
    lab.check_clean()


def test_a_signal_is_ignored(node, lab):
    node.post(init_app(0))
    signal = node.post(b"\x04\x00")
    request = node.post(submit(0, "ret_reg R0"))
    lab.run(5)
    assert node.replies[signal].error is None
    assert node.values(request) == [0]


def test_a_message_of_a_stranger_is_the_callers_to_handle(node):
    with pytest.raises(PeerProtocolError):
        node.kernel.peer_message(7, Cancel(0), 0)


def test_an_outcome_nobody_waits_for_changes_nothing(node, lab):
    node.kernel.tick(0, Outcome.SUCCESS_ONE)
    node.post(init_app(0))
    request = node.post(submit(0, "ret_reg M0"))
    lab.run(5)
    assert node.values(request) == [0]


def test_nothing_to_do_and_no_time_to_name(node):
    assert node.kernel.tick(0) is None
    assert node.kernel.next_tick(0) is None


def test_the_next_tick_is_that_of_the_offers_deadline():
    node = make_node(limits=Limits(offer_timeout_ticks=700))
    lab = solo(node)
    node.post(init_app(0))
    node.post(open_socket(0, 0, 2, 0))
    node.post(submit(0, create_epr()))
    lab.run(2)
    assert node.next_tick == 700


def test_without_a_schedule_there_is_no_entanglement():
    node = make_node()
    node.kernel.network.bins.schedule = None
    lab = solo(node)
    node.post(init_app(0))
    node.post(open_socket(0, 0, 2, 0))
    node.post(submit(0, create_epr()))
    lab.run(2_000)
    assert node.device.log == []


def test_events_of_a_subroutine_in_order(node, lab):
    node.post(init_app(0))
    node.post(submit(0, LOCAL))
    lab.run(10)
    names = [record.event.name for record in node.trace.records]
    assert names == [
        "PROCMGR_SUBROUTINE_ADDED",
        "SCHEDULER_ARRIVE_USER_PROCESS",
        "SCHEDULER_SCHEDULE_USER_PROCESS",
        "PROCESSOR_START_USER_PROCESS",
        "QDEVICE_PRODUCE_INI_CMD",
        "PROCESSOR_CONSUME_OUTCOME",
        "QDEVICE_PRODUCE_MSR_CMD",
        "PROCESSOR_CONSUME_OUTCOME",
        "PROCESSOR_FINISH_USER_PROCESS",
        "PROCMGR_SUBROUTINE_DONE",
    ]
    assert {record.pid for record in node.trace.records} == {1}


def test_compiled_subroutines_are_bounded():
    node = make_node(limits=Limits(compiled_subroutines=3))
    lab = solo(node)
    node.post(init_app(0))
    for number in range(6):
        node.post(submit(0, f"set R0 {number}"))
    lab.run(20)
    [process] = node.kernel.processes.values()
    assert len(process.compiled) == 3
