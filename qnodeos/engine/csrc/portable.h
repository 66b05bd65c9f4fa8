/* What every part needs: clock, pause, counters that another thread may read. */
#ifndef QNODEOS_PORTABLE_H
#define QNODEOS_PORTABLE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <time.h>

#define NS_PER_S 1000000000LL

#define LOAD_ACQUIRE(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
#define LOAD(place) __atomic_load_n(place, __ATOMIC_RELAXED)
#define STORE_RELEASE(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)
#define STORE(place, value) __atomic_store_n(place, value, __ATOMIC_RELAXED)
/* A counter has one writer, so that no locked addition is needed. */
#define COUNT(place, number) STORE(&(place), (place) + (number))

static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
}

/* Rounds towards minus infinity, as Python does; the divisor is positive. */
static inline int64_t floor_divide(int64_t value, int64_t divisor)
{
    int64_t quotient = value / divisor;
    return quotient - (value % divisor < 0);
}

#endif
