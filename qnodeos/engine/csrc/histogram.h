/* A histogram with a relative resolution of 1/32; qnodeos/engine/histogram.py reads it. */
#ifndef QNODEOS_HISTOGRAM_H
#define QNODEOS_HISTOGRAM_H

#include "portable.h"

#define SUB_BITS 5
#define BUCKETS (40 << SUB_BITS)

typedef struct {
    uint64_t counts[BUCKETS];
    int64_t maximum;
} histogram_t;

static inline int bucket_of(int64_t value)
{
    if (value < 1 << SUB_BITS)
        return value < 0 ? 0 : (int)value;
    int shift = 63 - __builtin_clzll((uint64_t)value) - SUB_BITS;
    int bucket = (shift << SUB_BITS) + (int)(value >> shift);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static inline void histogram_add(histogram_t *histogram, int64_t value)
{
    COUNT(histogram->counts[bucket_of(value)], 1);
    if (value > histogram->maximum)
        STORE(&histogram->maximum, value);
}

#endif
