/* A channel between a lab process and a QNPU; qnodeos/engine/layout.py says what is where. */
#ifndef QNODEOS_CHANNEL_H
#define QNODEOS_CHANNEL_H

#include "portable.h"

#define PAGE_BYTES 4096
#define CHANNEL_BYTES (4 * PAGE_BYTES)
#define CHANNEL_SLOTS (PAGE_BYTES / 16)
#define COMMANDS_AT (2 * PAGE_BYTES)
#define RESPONSES_AT (3 * PAGE_BYTES)
#define CAPABILITIES_AT 64
#define MAX_CAPABILITIES_BYTES 2048
#define DEVICE_BYTE 0
#define QNPU_BYTE 1
#define MAX_PATH_BYTES 4096
#define SLOT_PATIENCE 1000 /* looks at a slot with a wrong check before it is left out */

enum { /* places of the words, in 8 bytes */
    WORD_COMMAND_HEAD = PAGE_BYTES / 8,
    WORD_COMMAND_TAIL = WORD_COMMAND_HEAD + 8,
    WORD_RESPONSE_HEAD = WORD_COMMAND_HEAD + 16,
    WORD_RESPONSE_TAIL = WORD_COMMAND_HEAD + 24,
    WORD_QNPU_GENERATION = WORD_COMMAND_HEAD + 40,
    WORD_QNPU_HEARTBEAT = WORD_COMMAND_HEAD + 48,
};

typedef struct {
    int64_t tick;
    uint32_t frame, check;
} slot_t;

/* One direction, at one end. */
typedef struct {
    slot_t *slots;
    uint64_t *head, *tail;
    uint64_t damaged;
    int attempts;
} slot_ring_t;

int slot_push(slot_ring_t *ring, int64_t tick, uint32_t frame);
int slot_pop(slot_ring_t *ring, int64_t *tick, uint32_t *frame);
void slot_skip_all(slot_ring_t *ring);

/* The QNPU's end. */
typedef struct {
    unsigned char *memory; /* NULL while there is no device */
    int descriptor, bell;
    uint64_t generation; /* of the device */
    int64_t tick_ns, epoch_ns;
    slot_ring_t commands, responses;
    char path[MAX_PATH_BYTES], bell_path[MAX_PATH_BYTES];
    unsigned char expected[PAGE_BYTES]; /* page 0 of the first device */
} channel_t;

/* Returns 0, or an errno: EILSEQ is damage or another device, ENODEV a lab that has gone, EBUSY
 * another QNPU. */
int channel_open(channel_t *channel);
int channel_has_device(const channel_t *channel);
void channel_attach(channel_t *channel);
void channel_ring_bell(channel_t *channel);
void channel_beat(channel_t *channel, int64_t time_ns);
void channel_close(channel_t *channel);

#endif
