/* What frames travel on.
 *
 * Loopback and shm tell from which tick on a response holds (`schedule`), so nothing has to be
 * exchanged at a tick at which nothing is new. An SPI bus has to be clocked every tick.
 */
#ifndef QNODEOS_LINKS_H
#define QNODEOS_LINKS_H

#include "channel.h"
#include "schedule.h"
#include "slave.h"

typedef enum { LINK_LOOPBACK, LINK_SHM, LINK_SPIDEV } link_kind_t;

typedef struct {
    link_kind_t kind;
    int64_t tick_ns;
    int64_t epoch_ns; /* CLOCK_MONOTONIC at the begin of tick 0; may change while frames travel */
    int attached;     /* whether there is a device */
    uint64_t returns; /* how often it has come back */
    schedule_t schedule;
    /* loopback */
    slave_t slave;
    int64_t answer_ticks;
    /* shm */
    channel_t *channel;
    int64_t turns_ticks; /* what our ticks are ahead of those of the channel, after a restart */
    /* spidev */
    int spi;
    uint32_t speed_hz;
} link_t;

static inline int64_t link_tick_at(const link_t *link, int64_t time_ns)
{
    return floor_divide(time_ns - LOAD(&link->epoch_ns), link->tick_ns);
}

static inline int64_t link_time_of(const link_t *link, int64_t tick)
{
    return LOAD(&link->epoch_ns) + tick * link->tick_ns;
}

static inline int link_is_clocked(const link_t *link)
{
    return link->kind == LINK_SPIDEV;
}

/* Both return 0 or an errno. */
int link_open_shm(link_t *link, const char *path, const char *bell_path, const unsigned char *page);
int link_open_spidev(link_t *link, const char *path, uint8_t mode, uint32_t speed_hz);

/* How many QNPUs have attached; only of shm. */
uint64_t link_generation(const link_t *link);
void link_start(link_t *link, int64_t time_ns);
/* A command that is on the wire from this tick on; 0 if it has to wait. Not of clocked links. */
int link_send(link_t *link, int64_t tick, uint32_t frame);
/* Takes what the device has said into the schedule. Not of clocked links. */
void link_receive(link_t *link);
/* Swaps one frame; 0 if that failed. Only of clocked links. */
int link_swap(link_t *link, uint32_t frame, uint32_t *answer);
/* Looks whether the device is there, and attaches to it if it has come back. */
void link_maintain(link_t *link, int64_t time_ns);
void link_close(link_t *link);

#endif
