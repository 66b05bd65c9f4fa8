#include "frames.h"

uint32_t check_low[2048], check_high[2048], tick_pattern[TICK_TURN];

static uint32_t remainder_of(uint32_t value)
{
    for (int place = 31; place >= CHECK_BITS; place--)
        if (value >> place & 1)
            value ^= GENERATOR << (place - CHECK_BITS);
    return value;
}

void frames_prepare(void)
{
    for (uint32_t half = 0; half < 2048; half++) {
        check_low[half] = remainder_of(half << CHECK_BITS);
        check_high[half] = remainder_of(half << 21);
    }
    for (uint32_t tick = 0; tick < TICK_TURN; tick++)
        tick_pattern[tick] = tick << TICK_SHIFT | check_of(tick << TICK_SHIFT);
}
