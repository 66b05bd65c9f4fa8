/* The frames of qnodeos/qdevice/frames.py, which says what they mean. */
#ifndef QNODEOS_FRAMES_H
#define QNODEOS_FRAMES_H

#include "portable.h"

#define GENERATOR 0x44Du
#define COMMAND_CONSTANT 0x00Bu
#define RESPONSE_CONSTANT 0x02Du
#define CHECK_BITS 10
#define TICK_SHIFT 13
#define TICK_TURN 4096
#define TICK_MASK (TICK_TURN - 1)
#define MAX_SESSION 15u

#define DETAIL_NONE 0u
#define DETAIL_BOOT 6u
#define DETAIL_SESSION 7u
#define OUTCOME_HARDWARE_FAILURE 1u
#define OUTCOME_UNSUPPORTED 2u
#define OUTCOME_SUCCESS_ZERO 8u
#define OPCODE_NOP 0u
#define OPCODE_LAST 10u

typedef struct {
    uint32_t word, sequence, acknowledge;
} command_t;

typedef struct {
    uint32_t outcome, detail, tick, busy, sequence, acknowledge;
} response_t;

/* Remainders of the two halves of the 22 checked bits, and what the tick's bits change. */
#define HIDDEN __attribute__((visibility("hidden")))
extern HIDDEN uint32_t check_low[2048], check_high[2048], tick_pattern[TICK_TURN];

/* Fills them; once, before anything else here is used. */
HIDDEN void frames_prepare(void);

static inline uint32_t check_of(uint32_t frame)
{
    return check_high[frame >> 21] ^ check_low[frame >> 10 & 2047];
}

static inline uint32_t encode_command(uint32_t word, uint32_t sequence, uint32_t acknowledge)
{
    uint32_t frame = word << 12 | sequence << 11 | acknowledge << 10;
    return frame | (check_of(frame) ^ COMMAND_CONSTANT);
}

static inline int decode_command(uint32_t frame, command_t *command)
{
    if ((check_of(frame) ^ COMMAND_CONSTANT) != (frame & 1023))
        return 0;
    *command = (command_t){frame >> 12, frame >> 11 & 1, frame >> 10 & 1};
    return 1;
}

/* At tick 0. */
static inline uint32_t encode_response(uint32_t outcome, uint32_t detail, uint32_t busy,
                                       uint32_t sequence, uint32_t acknowledge)
{
    uint32_t frame =
        outcome << 28 | detail << 25 | busy << 12 | sequence << 11 | acknowledge << 10;
    return frame | (check_of(frame) ^ RESPONSE_CONSTANT);
}

static inline int decode_response(uint32_t frame, response_t *response)
{
    /* Outcomes 6, 7 and 13..15 are not assigned, nor is detail 5. */
    const uint32_t legal_outcomes = 0x1F3Fu;
    if ((check_of(frame) ^ RESPONSE_CONSTANT) != (frame & 1023))
        return 0;
    uint32_t outcome = frame >> 28, detail = frame >> 25 & 7;
    if (detail == 5 || (detail < 5 && !(legal_outcomes >> outcome & 1)))
        return 0;
    *response = (response_t){outcome,          detail,           frame >> TICK_SHIFT & TICK_MASK,
                             frame >> 12 & 1u, frame >> 11 & 1u, frame >> 10 & 1u};
    return 1;
}

static inline uint32_t session_word(uint32_t session)
{
    return OPCODE_NOP | 0xFu << 16 | session << 4;
}

static inline int session_of(uint32_t word)
{
    return (word & ~(MAX_SESSION << 4)) == session_word(0) ? (int)(word >> 4 & MAX_SESSION) : -1;
}

/* The tick with these low bits that is nearest to another (half a turn away: the later). */
static inline int64_t unwrap_tick(uint32_t low, int64_t near)
{
    int64_t half = TICK_TURN / 2;
    return near + (((int64_t)low - near + half - 1) & TICK_MASK) - half + 1;
}

/* What a response, encoded for one tick, is at another. */
static inline uint32_t frame_at(uint32_t frame, int64_t from_tick, int64_t tick)
{
    return frame ^ tick_pattern[from_tick & TICK_MASK] ^ tick_pattern[tick & TICK_MASK];
}

#endif
