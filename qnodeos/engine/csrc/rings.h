/* A bounded queue between two threads, one of which only pushes and the other only pops.
 *
 * Head and tail count for ever; each is written by one side. Each side keeps a copy of the
 * other's, so that the cache line of the other is touched only when the copy says full or empty.
 */
#ifndef QNODEOS_RINGS_H
#define QNODEOS_RINGS_H

#include "portable.h"

#define RING_ITEMS 1024u /* a power of two */

typedef struct {
    int64_t tick;
    int64_t value;
    int64_t command_tick; /* of an event: of the frame that first carried its instruction */
} item_t;

typedef struct {
    _Alignas(64) uint64_t head;
    uint64_t tail_seen;
    _Alignas(64) uint64_t tail;
    uint64_t head_seen;
    _Alignas(64) item_t items[RING_ITEMS];
} ring_t;

static inline int ring_push(ring_t *ring, item_t item)
{
    uint64_t head = ring->head;
    if (head - ring->tail_seen >= RING_ITEMS) {
        ring->tail_seen = LOAD_ACQUIRE(&ring->tail);
        if (head - ring->tail_seen >= RING_ITEMS)
            return 0;
    }
    ring->items[head % RING_ITEMS] = item;
    STORE_RELEASE(&ring->head, head + 1);
    return 1;
}

static inline int ring_pop(ring_t *ring, item_t *item)
{
    uint64_t tail = ring->tail;
    if (tail == ring->head_seen) {
        ring->head_seen = LOAD_ACQUIRE(&ring->head);
        if (tail == ring->head_seen)
            return 0;
    }
    *item = ring->items[tail % RING_ITEMS];
    STORE_RELEASE(&ring->tail, tail + 1);
    return 1;
}

/* Only by the side that pops. */
static inline int ring_is_empty(ring_t *ring)
{
    return ring->tail == LOAD_ACQUIRE(&ring->head);
}

#endif
