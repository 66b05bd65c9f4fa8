#include "links.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/spi/spidev.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* --- loopback: a device that answers SUCCESS_ZERO ---------------------------------------- */

static void loopback_start(link_t *link, int64_t time_ns)
{
    STORE(&link->epoch_ns, time_ns);
    slave_start(&link->slave);
    schedule_put(&link->schedule, 0, link->slave.frame);
}

static void loopback_send(link_t *link, int64_t tick, uint32_t frame)
{
    slave_t *slave = &link->slave;
    uint32_t before = slave->frame;
    int is_instruction = slave_incoming(slave, frame);
    if (slave->frame != before)
        schedule_put(&link->schedule, tick + 1, frame_at(slave->frame, 0, tick + 1));
    if (is_instruction) {
        int64_t answered = tick + link->answer_ticks + 1;
        slave_complete(slave, OUTCOME_SUCCESS_ZERO);
        schedule_put(&link->schedule, answered, frame_at(slave->frame, 0, answered));
    }
}

/* --- shm: a device in another process ----------------------------------------------------- */

/* Ticks further from the epoch have no time in 64 bits: 73 years. */
#define FURTHEST_NS (INT64_C(1) << 61)

static void shm_take_clock(link_t *link)
{
    STORE(&link->epoch_ns, link->channel->epoch_ns - link->turns_ticks * link->tick_ns);
}

int link_open_shm(link_t *link, const char *path, const char *bell_path, const unsigned char *page)
{
    if (strlen(path) >= MAX_PATH_BYTES || strlen(bell_path) >= MAX_PATH_BYTES)
        return ENAMETOOLONG;
    channel_t *channel = calloc(1, sizeof *channel);
    if (!channel)
        return ENOMEM;
    strcpy(channel->path, path);
    strcpy(channel->bell_path, bell_path);
    memcpy(channel->expected, page, PAGE_BYTES);
    int error = channel_open(channel);
    if (error) {
        free(channel);
        return error;
    }
    link->kind = LINK_SHM;
    link->channel = channel;
    link->tick_ns = channel->tick_ns;
    link->attached = 1;
    shm_take_clock(link);
    channel_attach(channel);
    return 0;
}

uint64_t link_generation(const link_t *link)
{
    return LOAD((uint64_t *)link->channel->memory + WORD_QNPU_GENERATION);
}

static void shm_maintain(link_t *link, int64_t time_ns)
{
    channel_t *channel = link->channel;
    if (channel->memory) {
        if (channel_has_device(channel)) {
            channel_beat(channel, time_ns);
            return;
        }
        /* Even if another is there already: what was outstanding is lost, and has to be told. */
        channel_close(channel);
        STORE(&link->attached, 0);
        link->schedule.number = 0;
        return;
    }
    if (channel_open(channel))
        return;
    /* Its ticks have begun anew: the low bits count, the higher ones go on as they were. */
    int64_t fresh = floor_divide(time_ns - channel->epoch_ns, link->tick_ns);
    link->turns_ticks =
        unwrap_tick((uint32_t)(fresh & TICK_MASK), link_tick_at(link, time_ns)) - fresh;
    shm_take_clock(link);
    STORE(&link->attached, 1);
    COUNT(link->returns, 1);
    channel_attach(channel);
}

static void shm_receive(link_t *link)
{
    int64_t from_tick;
    uint32_t frame;
    if (!link->channel->memory)
        return;
    slot_ring_t *responses = &link->channel->responses;
    while (!schedule_is_full(&link->schedule) && slot_pop(responses, &from_tick, &frame)) {
        int64_t furthest = FURTHEST_NS / link->tick_ns;
        if (from_tick < -furthest || from_tick > furthest)
            COUNT(responses->damaged, 1);
        else
            schedule_put(&link->schedule, from_tick + link->turns_ticks, frame);
    }
}

static int shm_send(link_t *link, int64_t tick, uint32_t frame)
{
    if (!link->channel->memory ||
        !slot_push(&link->channel->commands, tick - link->turns_ticks, frame))
        return 0;
    channel_ring_bell(link->channel);
    return 1;
}

/* --- spidev: one transfer per tick -------------------------------------------------------- */

int link_open_spidev(link_t *link, const char *path, uint8_t mode, uint32_t speed_hz)
{
    uint8_t bits = 8, lsb_first = 0, found_mode = 0xFF;
    int spi = open(path, O_RDWR | O_CLOEXEC);
    if (spi < 0)
        return errno;
    if (ioctl(spi, SPI_IOC_WR_MODE, &mode) || ioctl(spi, SPI_IOC_RD_MODE, &found_mode) ||
        ioctl(spi, SPI_IOC_WR_LSB_FIRST, &lsb_first) ||
        ioctl(spi, SPI_IOC_WR_BITS_PER_WORD, &bits) ||
        ioctl(spi, SPI_IOC_WR_MAX_SPEED_HZ, &speed_hz)) {
        int error = errno;
        close(spi);
        return error;
    }
    if ((found_mode & 3) != mode) {
        close(spi);
        return EINVAL;
    }
    link->kind = LINK_SPIDEV;
    link->spi = spi;
    link->speed_hz = speed_hz;
    link->attached = 1;
    return 0;
}

int link_swap(link_t *link, uint32_t frame, uint32_t *answer)
{
    uint8_t sent[4] = {(uint8_t)(frame >> 24), (uint8_t)(frame >> 16), (uint8_t)(frame >> 8),
                       (uint8_t)frame};
    uint8_t received[4] = {0};
    struct spi_ioc_transfer transfer = {
        .tx_buf = (uintptr_t)sent,
        .rx_buf = (uintptr_t)received,
        .len = sizeof sent,
        .speed_hz = link->speed_hz,
        .bits_per_word = 8,
    };
    if (ioctl(link->spi, SPI_IOC_MESSAGE(1), &transfer) < 0)
        return 0;
    *answer = (uint32_t)received[0] << 24 | (uint32_t)received[1] << 16 |
              (uint32_t)received[2] << 8 | received[3];
    return 1;
}

/* --- whichever it is ------------------------------------------------------------------------ */

void link_start(link_t *link, int64_t time_ns)
{
    link->schedule.number = 0;
    switch (link->kind) {
    case LINK_LOOPBACK:
        loopback_start(link, time_ns);
        break;
    case LINK_SHM:
        if (link->channel->memory) {
            channel_attach(link->channel);
            channel_beat(link->channel, time_ns);
        }
        break;
    case LINK_SPIDEV:
        STORE(&link->epoch_ns, time_ns);
        break;
    }
}

int link_send(link_t *link, int64_t tick, uint32_t frame)
{
    if (link->kind == LINK_SHM)
        return shm_send(link, tick, frame);
    loopback_send(link, tick, frame);
    return 1;
}

void link_receive(link_t *link)
{
    if (link->kind == LINK_SHM)
        shm_receive(link);
}

void link_maintain(link_t *link, int64_t time_ns)
{
    if (link->kind == LINK_SHM)
        shm_maintain(link, time_ns);
}

void link_close(link_t *link)
{
    if (link->channel) {
        channel_close(link->channel);
        free(link->channel);
        link->channel = NULL;
    }
    if (link->spi >= 0) {
        close(link->spi);
        link->spi = -1;
    }
}
