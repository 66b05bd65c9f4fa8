/* The QDevice's end of the wire: FrameSlave of qnodeos/qdevice/endpoint.py, which explains it. */
#ifndef QNODEOS_SLAVE_H
#define QNODEOS_SLAVE_H

#include "frames.h"

typedef struct {
    uint32_t accepted, answered, outcome, detail;
    uint32_t frame; /* to return from now on, at tick 0 */
    int in_session;
} slave_t;

static inline int slave_is_busy(const slave_t *slave)
{
    return slave->accepted != slave->answered;
}

static inline void slave_prepare(slave_t *slave)
{
    slave->frame = encode_response(slave->outcome, slave->detail, (uint32_t)slave_is_busy(slave),
                                   slave->answered, slave->accepted);
}

static inline void slave_start(slave_t *slave)
{
    *slave = (slave_t){.detail = DETAIL_BOOT};
    slave_prepare(slave);
}

static inline void slave_complete(slave_t *slave, uint32_t outcome)
{
    slave->answered = slave->accepted;
    slave->outcome = outcome;
    slave->detail = DETAIL_NONE;
    slave_prepare(slave);
}

/* Returns whether the frame brought an instruction, which then waits for `slave_complete`. */
static inline int slave_incoming(slave_t *slave, uint32_t frame)
{
    command_t command;
    if (!decode_command(frame, &command) || slave_is_busy(slave))
        return 0;
    int session = session_of(command.word);
    if (session >= 0) {
        *slave = (slave_t){.in_session = 1, .outcome = (uint32_t)session, .detail = DETAIL_SESSION};
        slave_prepare(slave);
        return 0;
    }
    uint32_t opcode = command.word & 0xF;
    if (opcode == OPCODE_NOP || !slave->in_session || command.sequence == slave->accepted ||
        command.acknowledge != slave->accepted)
        return 0;
    slave->accepted = command.sequence;
    slave_prepare(slave);
    if (opcode > OPCODE_LAST) {
        slave_complete(slave, OUTCOME_UNSUPPORTED);
        return 0;
    }
    return 1;
}

#endif
