/* Responses that hold from a tick on; a later one replaces those it does not follow. */
#ifndef QNODEOS_SCHEDULE_H
#define QNODEOS_SCHEDULE_H

#include "frames.h"

#define MAX_PENDING 256u /* a power of two */

typedef struct {
    int64_t from_tick;
    uint32_t frame;
} entry_t;

typedef struct {
    entry_t pending[MAX_PENDING];
    uint32_t front, number;
} schedule_t;

static inline int schedule_is_full(const schedule_t *schedule)
{
    return schedule->number >= MAX_PENDING;
}

/* Only while it is not full. */
static inline void schedule_put(schedule_t *schedule, int64_t from_tick, uint32_t frame)
{
    while (schedule->number &&
           schedule->pending[(schedule->front + schedule->number - 1) % MAX_PENDING].from_tick >=
               from_tick)
        schedule->number--;
    schedule->pending[(schedule->front + schedule->number++) % MAX_PENDING] =
        (entry_t){from_tick, frame};
}

/* The next entry that has come to hold; 0 if none has. */
static inline int schedule_take(schedule_t *schedule, int64_t tick, entry_t *entry)
{
    if (!schedule->number || schedule->pending[schedule->front].from_tick > tick)
        return 0;
    *entry = schedule->pending[schedule->front];
    schedule->front = (schedule->front + 1) % MAX_PENDING;
    schedule->number--;
    return 1;
}

#endif
