"""The events of a trace, under the names the real system gives them.

Source of the names: the analysis library published with the dataset of Delle Donne et
al., Nature 639, 321 (2025). The numbers are ours, spaced by subsystem and stable, so that
recorded columns keep their meaning when an event is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from qnodeos.qdevice.instructions import Opcode


class Event(IntEnum):
    """What happened. Values fit the recorder's 16-bit column."""

    # Host (CNPU): time in microseconds.
    SUBROUTINE_SEND_ATTEMPT = 0
    SUBROUTINE_SENT = 1
    RESULT_RCVD = 2
    CLAS_MSG_SENT = 3
    CLAS_MSG_RCVD = 4

    # QNPU, the wire to the QDevice: time in ticks from here on.
    QDEVICE_PRODUCE_INI_CMD = 16
    QDEVICE_PRODUCE_SQG_CMD = 17
    QDEVICE_PRODUCE_TQG_CMD = 18
    QDEVICE_PRODUCE_ENT_CMD = 19
    QDEVICE_PRODUCE_ENM_CMD = 20
    QDEVICE_PRODUCE_MSR_CMD = 21
    QDEVICE_PRODUCE_CMD = 22
    QDEVICE_PRODUCE_OUTCOME = 23
    QDEVICE_CONSUME_CMD = 24

    # QNPU, the network stack: schedule, network layer (QNP), link layer (EGP).
    QNETWORK_ENT_PULL = 32
    QNETWORK_ENM_PULL = 33
    QNETWORK_SWAP_PULL = 34
    QNETWORK_SWAP_RET = 35
    QNP_BQ_DELIVERED = 40
    QNPD_COMPLETE_SENT = 41
    QNPD_EXPIRE_SENT = 42
    QNPD_TRACK_SENT = 43
    QNPD_FORWARD_SENT = 44
    QNPD_PASS_SENT = 45
    QNPD_COMPLETE_RECEIVED = 46
    QNPD_EXPIRE_RECEIVED = 47
    QNPD_TRACK_RECEIVED = 48
    QNPD_FORWARD_RECEIVED = 49
    QNPD_PASS_RECEIVED = 50
    QNPD_TRACK_CACHED = 51
    EGP_ENT_OK = 56
    EGP_ENM_OK = 57
    EGP_NEI_OK = 58
    EGPD_CREATE = 59

    # QNPU, processor, scheduler and process manager.
    PROCESSOR_START_USER_PROCESS = 64
    PROCESSOR_WAIT_USER_PROCESS = 65
    PROCESSOR_FINISH_USER_PROCESS = 66
    PROCESSOR_START_NET_PROCESS = 67
    PROCESSOR_FINISH_NET_PROCESS = 68
    PROCESSOR_CONSUME_OUTCOME = 69
    SCHEDULER_HIGH_PRIO_PROCESS_WAITS_ON_LOWER_PRIO = 80
    SCHEDULER_ARRIVE_USER_PROCESS = 81
    SCHEDULER_ARRIVE_NET_PROCESS = 82
    SCHEDULER_SCHEDULE_USER_PROCESS = 83
    SCHEDULER_SCHEDULE_NET_PROCESS = 84
    PROCMGR_SUBROUTINE_ADDED = 96
    PROCMGR_SUBROUTINE_DONE = 97
    PROCMGR_SUBROUTINE_ABORTED = 98


HOST_EVENTS: Final = frozenset(
    {
        Event.SUBROUTINE_SEND_ATTEMPT,
        Event.SUBROUTINE_SENT,
        Event.RESULT_RCVD,
        Event.CLAS_MSG_SENT,
        Event.CLAS_MSG_RCVD,
    }
)
"""Events of a host trace; all others belong to a QNPU trace."""

PER_PROCESS_EVENTS: Final = frozenset(
    {
        Event.PROCMGR_SUBROUTINE_ADDED,
        Event.PROCMGR_SUBROUTINE_DONE,
        Event.PROCMGR_SUBROUTINE_ABORTED,
    }
)
"""Events whose published channel name ends in the process id, ``_P<n>``."""

USER_PROCESS_EVENTS: Final = PER_PROCESS_EVENTS | {
    Event.QNP_BQ_DELIVERED,
    Event.EGPD_CREATE,
    Event.PROCESSOR_START_USER_PROCESS,
    Event.PROCESSOR_WAIT_USER_PROCESS,
    Event.PROCESSOR_FINISH_USER_PROCESS,
    Event.SCHEDULER_ARRIVE_USER_PROCESS,
    Event.SCHEDULER_SCHEDULE_USER_PROCESS,
}
"""Events that concern one user process."""

PRODUCE_EVENT: Final[Mapping[Opcode, Event]] = MappingProxyType(
    {
        Opcode.INI: Event.QDEVICE_PRODUCE_INI_CMD,
        Opcode.SQG: Event.QDEVICE_PRODUCE_SQG_CMD,
        Opcode.TQG: Event.QDEVICE_PRODUCE_TQG_CMD,
        Opcode.ENT: Event.QDEVICE_PRODUCE_ENT_CMD,
        Opcode.ENM: Event.QDEVICE_PRODUCE_ENM_CMD,
        Opcode.MSR: Event.QDEVICE_PRODUCE_MSR_CMD,
        Opcode.PMG: Event.QDEVICE_PRODUCE_CMD,
        Opcode.MOV: Event.QDEVICE_PRODUCE_CMD,
        Opcode.SWP: Event.QDEVICE_PRODUCE_CMD,
        Opcode.ESW: Event.QDEVICE_PRODUCE_CMD,
    }
)
"""Event to record when an instruction is handed to the wire (NOP is not recorded)."""
