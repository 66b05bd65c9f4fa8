/* The QNPU's end of the wire: FrameMaster of qnodeos/qdevice/endpoint.py, which explains it.
 * tests/service/test_engine_master.py holds the two against each other.
 */
#ifndef QNODEOS_MASTER_H
#define QNODEOS_MASTER_H

#include "frames.h"

#define NO_RESPONSE (-1)
/* A response as one number: the outcome, and the detail behind it. */
#define RESPONSE(outcome, detail) ((int)((outcome) | (detail) << 4))

typedef struct {
    int64_t silence, silence_limit;
    uint64_t corrupted_frames, device_restarts, given_up;
    uint32_t frame; /* repeated from now on */
    uint32_t quiet; /* received, at tick 0, that would change nothing */
    uint32_t word, sequence, session, device_tick_low;
    int has_quiet, in_session, outstanding, unsent;
    int heard; /* the last frame was valid */
} master_t;

static inline void master_prepare(master_t *master)
{
    master->has_quiet = 0;
    if (!master->in_session)
        master->frame = encode_command(session_word(master->session), 0, 0);
    else if (master->outstanding)
        master->frame = encode_command(master->word, master->sequence ^ 1, master->sequence);
    else
        master->frame = encode_command(OPCODE_NOP, master->sequence, master->sequence);
}

static inline void master_open_session(master_t *master, uint32_t session)
{
    master->session = session & MAX_SESSION;
    master->in_session = 0;
    master->sequence = 0;
    master->silence = 0;
    master->word = OPCODE_NOP;
    master->unsent = 0;
    master_prepare(master);
}

static inline void master_start(master_t *master, uint32_t session, int64_t silence_limit)
{
    master->silence_limit = silence_limit;
    master->outstanding = 0;
    master->heard = 0;
    master_open_session(master, session);
}

static inline int master_has_news(const master_t *master)
{
    return master->unsent || !master->in_session;
}

/* Only while nothing is outstanding. */
static inline void master_submit(master_t *master, uint32_t word)
{
    master->word = word;
    master->outstanding = 1;
    master->unsent = 1;
    master->silence = 0;
    master_prepare(master);
}

/* The frame has gone out. Returns whether an instruction went out with it for the first time. */
static inline int master_sent(master_t *master)
{
    if (!master->in_session || !master->unsent)
        return 0;
    master->unsent = 0;
    return 1;
}

static inline int master_give_up(master_t *master)
{
    int was_outstanding = master->outstanding;
    master->outstanding = 0;
    master_open_session(master, master->session + 1);
    if (!was_outstanding)
        return NO_RESPONSE;
    COUNT(master->given_up, 1);
    return RESPONSE(OUTCOME_HARDWARE_FAILURE, DETAIL_NONE);
}

static inline int master_endure_silence(master_t *master)
{
    master->has_quiet = 0;
    master->silence++;
    if (master->outstanding && master->silence >= master->silence_limit)
        return master_give_up(master);
    return NO_RESPONSE;
}

/* No frame came at all at so many ticks. */
static inline int master_silent(master_t *master, int64_t frames)
{
    if (frames <= 0)
        return NO_RESPONSE;
    /* Bounded, so that years of silence do not wrap. */
    if (frames > master->silence_limit)
        frames = master->silence_limit;
    master->silence += frames - 1;
    return master_endure_silence(master);
}

/* The frame taken last came this many times more. */
static inline int master_repeated(master_t *master, int64_t frames)
{
    return master->silence ? master_silent(master, frames) : NO_RESPONSE;
}

static inline int master_incoming(master_t *master, uint32_t frame)
{
    uint32_t tick_low = frame >> TICK_SHIFT & TICK_MASK;
    uint32_t at_tick_zero = frame ^ tick_pattern[tick_low];
    response_t response;

    master->heard = 1;
    if (master->has_quiet && at_tick_zero == master->quiet) {
        master->device_tick_low = tick_low;
        return NO_RESPONSE;
    }
    if (!decode_response(at_tick_zero, &response)) {
        master->heard = 0;
        COUNT(master->corrupted_frames, 1);
        return master_endure_silence(master);
    }
    master->device_tick_low = tick_low;
    if (!master->in_session) {
        if (response.detail == DETAIL_SESSION && response.outcome == master->session) {
            master->in_session = 1;
            master->silence = 0;
            master_prepare(master);
            return NO_RESPONSE;
        }
        return response.busy ? NO_RESPONSE : master_endure_silence(master);
    }
    if (response.detail == DETAIL_BOOT) {
        COUNT(master->device_restarts, 1);
        return master_give_up(master);
    }
    if (master->outstanding) {
        if (response.sequence != master->sequence && response.detail != DETAIL_SESSION) {
            master->outstanding = 0;
            master->sequence = response.sequence;
            master_prepare(master);
            return RESPONSE(response.outcome, response.detail);
        }
        if (!response.busy)
            return master_endure_silence(master);
    }
    master->silence = 0;
    master->has_quiet = 1;
    master->quiet = at_tick_zero;
    return NO_RESPONSE;
}

#endif
