#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- slots ---------------------------------------------------------------------------- */

static uint32_t slot_check(uint64_t index, int64_t tick, uint32_t frame)
{
    uint64_t mixed = (uint64_t)tick ^ index * 0x9E3779B97F4A7C15ull ^ ((uint64_t)frame << 32 | frame);
    mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93ull;
    return (uint32_t)(mixed >> 32);
}

int slot_push(slot_ring_t *ring, int64_t tick, uint32_t frame)
{
    uint64_t head = LOAD(ring->head);
    if (head - LOAD_ACQUIRE(ring->tail) >= CHANNEL_SLOTS)
        return 0;
    ring->slots[head % CHANNEL_SLOTS] = (slot_t){tick, frame, slot_check(head, tick, frame)};
    STORE_RELEASE(ring->head, head + 1);
    return 1;
}

int slot_pop(slot_ring_t *ring, int64_t *tick, uint32_t *frame)
{
    uint64_t tail = LOAD(ring->tail);
    uint64_t waiting = LOAD_ACQUIRE(ring->head) - tail;
    if (!waiting)
        return 0;
    if (waiting > CHANNEL_SLOTS) {
        COUNT(ring->damaged, 1);
        slot_skip_all(ring);
        return 0;
    }
    /* A copy, because another process may write at any time, whatever it has promised. */
    slot_t slot = *(volatile slot_t *)&ring->slots[tail % CHANNEL_SLOTS];
    int complete = slot.check == slot_check(tail, slot.tick, slot.frame);
    if (!complete) {
        /* A writer in Python has no store barriers; on some processors the slot comes later. */
        if (++ring->attempts < SLOT_PATIENCE)
            return 0;
        COUNT(ring->damaged, 1);
    }
    ring->attempts = 0;
    STORE_RELEASE(ring->tail, tail + 1);
    *tick = slot.tick;
    *frame = slot.frame;
    return complete;
}

void slot_skip_all(slot_ring_t *ring)
{
    ring->attempts = 0;
    STORE_RELEASE(ring->tail, LOAD_ACQUIRE(ring->head));
}

/* --- the file ------------------------------------------------------------------------- */

typedef struct {
    char magic[8];
    uint32_t version, slots;
    uint64_t tick_ns;
    int64_t epoch_ns;
    uint64_t generation;
    uint32_t capabilities_bytes, check;
} header_t;

static uint32_t crc32(uint32_t crc, const unsigned char *bytes, size_t number)
{
    crc = ~crc;
    while (number--) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

static int header_is_expected(const unsigned char *page, const unsigned char *expected)
{
    header_t header, first;
    memcpy(&header, page, sizeof header);
    memcpy(&first, expected, sizeof first);
    if (memcmp(header.magic, first.magic, sizeof header.magic) ||
        header.version != first.version || header.slots != first.slots ||
        header.tick_ns != first.tick_ns || header.capabilities_bytes != first.capabilities_bytes ||
        header.capabilities_bytes > MAX_CAPABILITIES_BYTES || header.epoch_ns < 0 ||
        header.epoch_ns > INT64_C(1) << 62)
        return 0;
    uint32_t check = crc32(0, page, offsetof(header_t, check));
    check = crc32(check, page + CAPABILITIES_AT, header.capabilities_bytes);
    return check == header.check &&
           !memcmp(page + CAPABILITIES_AT, expected + CAPABILITIES_AT, header.capabilities_bytes);
}

static int byte_is_locked(int descriptor, int byte)
{
    struct flock asked = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(descriptor, F_OFD_GETLK, &asked) == 0 && asked.l_type != F_UNLCK;
}

static int lock_byte(int descriptor, int byte)
{
    struct flock wanted = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(descriptor, F_OFD_SETLK, &wanted) == 0;
}

static int check_file(int descriptor)
{
    struct stat found;
    if (fstat(descriptor, &found))
        return errno;
    if (!S_ISREG(found.st_mode) || found.st_size != CHANNEL_BYTES)
        return EILSEQ;
    if (found.st_uid != 0 && found.st_uid != geteuid())
        return EPERM;
    if (!byte_is_locked(descriptor, DEVICE_BYTE))
        return ENODEV;
    return 0;
}

static slot_ring_t ring_in(unsigned char *memory, int slots_at, int head, int tail)
{
    uint64_t *words = (uint64_t *)memory;
    return (slot_ring_t){(slot_t *)(memory + slots_at), words + head, words + tail, 0, 0};
}

int channel_open(channel_t *channel)
{
    int descriptor =
        open(channel->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0)
        return errno;
    int error = check_file(descriptor);
    unsigned char *memory = MAP_FAILED;
    if (!error) {
        memory =
            mmap(NULL, CHANNEL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, 0);
        error = memory == MAP_FAILED ? errno : 0;
    }
    unsigned char page[PAGE_BYTES];
    if (!error) {
        memcpy(page, memory, sizeof page);
        error = header_is_expected(page, channel->expected) ? 0 : EILSEQ;
    }
    if (!error && !lock_byte(descriptor, QNPU_BYTE))
        error = EBUSY;
    if (error) {
        if (memory != MAP_FAILED)
            munmap(memory, CHANNEL_BYTES);
        close(descriptor);
        return error;
    }
    header_t header;
    memcpy(&header, page, sizeof header);
    channel->memory = memory;
    channel->descriptor = descriptor;
    channel->bell = -1;
    channel->generation = header.generation;
    channel->tick_ns = (int64_t)header.tick_ns;
    channel->epoch_ns = header.epoch_ns;
    channel->commands = ring_in(memory, COMMANDS_AT, WORD_COMMAND_HEAD, WORD_COMMAND_TAIL);
    uint64_t damaged = channel->responses.damaged;
    channel->responses = ring_in(memory, RESPONSES_AT, WORD_RESPONSE_HEAD, WORD_RESPONSE_TAIL);
    channel->responses.damaged = damaged;
    return 0;
}

int channel_has_device(const channel_t *channel)
{
    return byte_is_locked(channel->descriptor, DEVICE_BYTE);
}

static void find_bell(channel_t *channel)
{
    struct stat found;
    if (channel->bell >= 0)
        close(channel->bell);
    channel->bell = open(channel->bell_path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (channel->bell >= 0 && (fstat(channel->bell, &found) || !S_ISFIFO(found.st_mode))) {
        close(channel->bell);
        channel->bell = -1;
    }
}

void channel_attach(channel_t *channel)
{
    uint64_t *generation = (uint64_t *)channel->memory + WORD_QNPU_GENERATION;
    slot_skip_all(&channel->responses);
    STORE_RELEASE(generation, LOAD(generation) + 1);
    find_bell(channel);
    channel_ring_bell(channel);
}

void channel_ring_bell(channel_t *channel)
{
    /* A full pipe has been rung often enough, and a broken one belongs to a lab that has gone. */
    if (channel->bell >= 0 && write(channel->bell, "", 1) < 0 && errno != EAGAIN) {
        close(channel->bell);
        channel->bell = -1;
    }
}

void channel_beat(channel_t *channel, int64_t time_ns)
{
    STORE((int64_t *)channel->memory + WORD_QNPU_HEARTBEAT, time_ns);
}

void channel_close(channel_t *channel)
{
    if (!channel->memory)
        return;
    munmap(channel->memory, CHANNEL_BYTES);
    channel->memory = NULL;
    close(channel->descriptor);
    if (channel->bell >= 0)
        close(channel->bell);
    channel->bell = -1;
}
