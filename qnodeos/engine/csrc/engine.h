/* The tick engine: exchanges frames, for one thread that decides.
 *
 * Spinning, a thread of the engine exchanges one frame each way per tick; it never runs Python,
 * and talks to the deciding thread through rings. Event-paced, the deciding thread exchanges
 * itself, in `engine_poll`, what says something new. docs/decisions/0013-tick-engine.md says why.
 */
#ifndef QNODEOS_ENGINE_H
#define QNODEOS_ENGINE_H

#include "portable.h"

#include <pthread.h>
#include <sys/types.h>

#include "histogram.h"
#include "links.h"
#include "master.h"
#include "rings.h"

#define STALL_NS 1000000LL
#define MAINTENANCE_NS 100000000LL
#define NEVER INT64_MAX
#define LATE_START_NS 200000LL /* for the thread to come up before its first tick */

enum { SUBMIT_DONE, SUBMIT_OUTSTANDING, SUBMIT_NOT_RUNNING };

typedef struct {
    /* settings */
    link_t link;
    int is_spinning;
    int core;     /* -1: not pinned */
    int priority; /* 0: SCHED_OTHER */
    int64_t share_ns; /* of every 250 ms, to spend as an ordinary thread; 0: none */
    int doorbell; /* rung by the device, event-paced; -1: none */
    int64_t silence_limit, busy_limit;

    /* of the deciding thread */
    int is_running, is_outstanding, may_block, is_closed;
    pid_t owner; /* the process that has the thread: a fork has not */
    int has_fifo; /* whether the thread got its priority */
    int event_descriptor, timer;
    int64_t timer_set_ns;
    int64_t wake_tick, latest_tick;
    uint32_t session;
    uint64_t instructions;
    pthread_t thread;

    /* between the two */
    ring_t commands, events, skips;
    _Alignas(64) int stop;
    int is_signalled; /* the event descriptor has been written and not yet read */
    int64_t stall_wish_ns;

    /* of whoever exchanges frames */
    _Alignas(64) master_t master;
    int64_t exchanged_tick, deadline_tick, event_tick, maintenance_ns;
    int64_t command_tick; /* of the frame that first carried the instruction; NEVER: none has */
    entry_t current; /* what is on the wire */
    int has_current, has_sent, is_refused;
    uint32_t sent_frame;
    histogram_t lateness, reaction;
    uint64_t ticks, skipped, skips_unread, stalls, answered, busy_timeouts, overflows, link_errors;
} engine_t;

int engine_open(engine_t *engine); /* 0 or an errno; the link is open already */
int engine_start(engine_t *engine);
void engine_stop(engine_t *engine);
/* More than once does no harm; but nothing else may come after it. */
void engine_close(engine_t *engine);

int engine_submit(engine_t *engine, uint32_t word);
int engine_poll(engine_t *engine, item_t *event);
int64_t engine_tick_at(engine_t *engine, int64_t time_ns);
void engine_wake_at(engine_t *engine, int64_t tick);
/* From now on the descriptors are watched. */
void engine_may_block(engine_t *engine);
/* Exchanges the frames of some ticks, one after the other, without waiting for any: to measure
 * what a tick costs. Not while it is running. */
void engine_run_ticks(engine_t *engine, int64_t ticks);

#endif
