#include "engine.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define STACK_BYTES (256 * 1024)
#define SHARE_PERIOD_NS 250000000LL
#define BEST_NICE (-20)
/* A thread that sleeps wakes up late, by some 20 us on the machines we know (assumed: at most
 * this). So an event-paced engine wakes its owner up early for a response that it knows to hold
 * from a tick on. The timer stays readable until then, which keeps the owner awake. */
#define EARLY_NS 60000

/* --- what the exchange of a frame leads to ------------------------------------------------ */

static void deliver(engine_t *engine, int response, int64_t tick)
{
    if (response == NO_RESPONSE)
        return;
    /* Event-paced, a frame is written before its tick; it may be given up before it, too. */
    int64_t command_tick = engine->command_tick < tick ? engine->command_tick : tick;
    engine->deadline_tick = NEVER;
    engine->event_tick = tick;
    COUNT(engine->answered, 1);
    /* One instruction is outstanding at most, so there is room. */
    ring_push(&engine->events, (item_t){tick, response, command_tick});
    if (engine->is_spinning && !__atomic_exchange_n(&engine->is_signalled, 1, __ATOMIC_ACQ_REL)) {
        uint64_t one = 1;
        if (write(engine->event_descriptor, &one, sizeof one) < 0)
            COUNT(engine->overflows, 1);
    }
}

/* An exchange took place this much later than its tick began. */
static void count_exchange(engine_t *engine, int64_t tick, int64_t late_ns)
{
    COUNT(engine->ticks, 1);
    histogram_add(&engine->lateness, late_ns);
    if (late_ns > STALL_NS)
        COUNT(engine->stalls, 1);
    if (late_ns < engine->link.tick_ns)
        return;
    int64_t slots = late_ns / engine->link.tick_ns;
    COUNT(engine->skipped, (uint64_t)slots);
    if (!ring_push(&engine->skips, (item_t){tick, slots, 0}))
        COUNT(engine->skips_unread, 1);
}

/* The frame of this tick is the first with the instruction. */
static void note_first(engine_t *engine, int64_t tick)
{
    engine->command_tick = tick;
    if (engine->event_tick != NEVER)
        histogram_add(&engine->reaction, tick - (engine->event_tick - 1));
}

static void send_news(engine_t *engine, int64_t tick)
{
    master_t *master = &engine->master;
    if (!master_has_news(master) || (engine->has_sent && engine->sent_frame == master->frame))
        return;
    if (!link_send(&engine->link, tick, master->frame)) {
        COUNT(engine->overflows, !engine->is_refused);
        engine->is_refused = 1;
        return;
    }
    engine->is_refused = 0;
    engine->has_sent = 1;
    engine->sent_frame = master->frame;
    if (master_sent(master))
        note_first(engine, tick);
}

static void take_command(engine_t *engine, int64_t word, int64_t tick)
{
    master_submit(&engine->master, (uint32_t)word);
    engine->command_tick = NEVER;
    engine->deadline_tick = tick + engine->busy_limit;
}

static void keep_limits(engine_t *engine, int64_t tick)
{
    if (tick >= engine->deadline_tick) {
        COUNT(engine->busy_timeouts, 1);
        deliver(engine, master_give_up(&engine->master), tick);
    }
    if (!LOAD(&engine->link.attached) && engine->master.outstanding)
        deliver(engine, master_give_up(&engine->master), tick);
}

/* Returns whether the device, and with it its clock, is another than before. */
static int maintain(engine_t *engine, int64_t time_ns)
{
    int was_attached = engine->link.attached;
    engine->maintenance_ns = time_ns + MAINTENANCE_NS;
    link_maintain(&engine->link, time_ns);
    if (was_attached == engine->link.attached)
        return 0;
    engine->has_current = engine->has_sent = 0;
    if (!engine->link.attached)
        deliver(engine, master_give_up(&engine->master), link_tick_at(&engine->link, time_ns));
    return engine->link.attached;
}

static void exchange_clocked(engine_t *engine, int64_t tick)
{
    master_t *master = &engine->master;
    link_t *link = &engine->link;
    uint32_t answer;
    if (!link_swap(link, master->frame, &answer)) {
        COUNT(engine->link_errors, 1);
        deliver(engine, master_silent(master, 1), tick);
        return;
    }
    int is_first = master_sent(master);
    int response = master_incoming(master, answer);
    if (master->heard) {
        /* The device's counter is the clock; ours says only where in a tick we are. */
        int64_t device_tick = unwrap_tick(master->device_tick_low, tick);
        if (device_tick != tick)
            STORE(&link->epoch_ns, link->epoch_ns - (device_tick - tick) * link->tick_ns);
        engine->exchanged_tick = tick = device_tick;
    }
    if (is_first)
        note_first(engine, tick);
    deliver(engine, response, tick);
}

/* --- spinning ------------------------------------------------------------------------------- */

static void exchange(engine_t *engine, int64_t tick)
{
    item_t command;
    engine->exchanged_tick = tick;
    if (ring_pop(&engine->commands, &command))
        take_command(engine, command.value, tick);
    if (link_is_clocked(&engine->link)) {
        exchange_clocked(engine, tick);
    } else {
        if (engine->link.attached)
            send_news(engine, tick);
        link_receive(&engine->link);
        while (schedule_take(&engine->link.schedule, tick, &engine->current))
            engine->has_current = 1;
        int response;
        if (engine->has_current)
            response = master_incoming(
                &engine->master,
                frame_at(engine->current.frame, engine->current.from_tick, tick));
        else
            response = master_silent(&engine->master, 1);
        deliver(engine, response, tick);
    }
    keep_limits(engine, engine->exchanged_tick);
}

/* Linux stops real-time threads that use more than their share of a core (sched_rt_runtime_us),
 * for all of the rest: 50 ms in every second. So before that happens, the thread spends the rest
 * as an ordinary one, a few ms at a time and with the best of all nice values: then it loses only
 * what others of that core really need, among them threads of the kernel that wait for it. */
typedef struct {
    int64_t next_ns;
    int is_sharing;
} share_t;

static void share_core(engine_t *engine, share_t *share, int64_t time_ns)
{
    struct sched_param parameters = {0};
    share->is_sharing = !share->is_sharing;
    if (share->is_sharing) {
        share->next_ns = time_ns + engine->share_ns;
        sched_setscheduler(0, SCHED_OTHER, &parameters);
        return;
    }
    share->next_ns = time_ns + SHARE_PERIOD_NS - engine->share_ns;
    parameters.sched_priority = engine->priority;
    if (sched_setscheduler(0, SCHED_FIFO, &parameters))
        STORE(&engine->has_fifo, 0);
}

static void *tick_main(void *argument)
{
    engine_t *engine = argument;
    link_t *link = &engine->link;
    share_t share = {NEVER, 1};

    if (LOAD(&engine->has_fifo) && engine->share_ns) {
        setpriority(PRIO_PROCESS, 0, BEST_NICE);
        share_core(engine, &share, now_ns());
    }
    int64_t tick = link_tick_at(link, now_ns() + LATE_START_NS) + 1;

    while (!LOAD(&engine->stop)) {
        int64_t due_ns = link_time_of(link, tick), time_ns;
        while ((time_ns = now_ns()) < due_ns)
            relax();
        int64_t late_ns = time_ns - due_ns;
        count_exchange(engine, tick, late_ns);
        exchange(engine, tick + late_ns / link->tick_ns);
        tick = engine->exchanged_tick + 1;
        if (time_ns >= engine->maintenance_ns && maintain(engine, time_ns))
            tick = link_tick_at(link, now_ns()) + 1;
        if (time_ns >= share.next_ns)
            share_core(engine, &share, time_ns);
        if (LOAD(&engine->stall_wish_ns)) {
            int64_t end_ns = now_ns() + __atomic_exchange_n(&engine->stall_wish_ns, 0,
                                                            __ATOMIC_RELAXED);
            while (now_ns() < end_ns && !LOAD(&engine->stop))
                relax();
        }
    }
    return NULL;
}

static int start_thread(engine_t *engine, int priority)
{
    pthread_attr_t attributes;
    struct sched_param parameters = {.sched_priority = priority};
    sigset_t all, before;

    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    /* Before it is created: a thread that inherited the core and the policy of a deciding thread
     * that spins would never run, and so could never be moved. */
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, priority ? SCHED_FIFO : SCHED_OTHER);
    error = pthread_attr_setschedparam(&attributes, &parameters);
    if (!error && engine->core >= 0) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(engine->core, &cores);
        error = pthread_attr_setaffinity_np(&attributes, sizeof cores, &cores);
    }
    if (!error) {
        /* Signals are Python's. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        error = pthread_create(&engine->thread, &attributes, tick_main, engine);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    return error;
}

/* --- event-paced ---------------------------------------------------------------------------- */

/* Up to this tick, the wire carries the same again. */
static void pass_ticks(engine_t *engine, int64_t tick)
{
    int64_t frames = tick - engine->exchanged_tick;
    if (frames <= 0)
        return;
    if (engine->has_current) {
        master_t *master = &engine->master;
        int64_t first = engine->exchanged_tick + 1;
        uint32_t frame = frame_at(engine->current.frame, engine->current.from_tick, first);
        deliver(engine, master_incoming(master, frame), first);
        deliver(engine, master_repeated(master, frames - 1), tick);
    } else {
        deliver(engine, master_silent(&engine->master, frames), tick);
    }
    engine->exchanged_tick = tick;
}

/* Takes the responses that have come to hold, and the ticks in between. */
static void exchange_due(engine_t *engine, int64_t tick, int64_t time_ns)
{
    link_t *link = &engine->link;
    entry_t entry;
    if (link_is_clocked(link)) {
        if (tick > engine->exchanged_tick) {
            engine->exchanged_tick = tick;
            count_exchange(engine, tick, time_ns - link_time_of(link, tick));
            exchange_clocked(engine, tick);
        }
        return;
    }
    link_receive(link);
    while (schedule_take(&link->schedule, tick, &entry)) {
        /* What was said late is on the wire when it is said. */
        int64_t at =
            entry.from_tick > engine->exchanged_tick ? entry.from_tick : engine->exchanged_tick;
        pass_ticks(engine, at - 1);
        engine->current = entry;
        engine->has_current = 1;
        engine->exchanged_tick = at;
        count_exchange(engine, at, time_ns - link_time_of(link, at));
        uint32_t frame = frame_at(entry.frame, entry.from_tick, at);
        deliver(engine, master_incoming(&engine->master, frame), at);
    }
    pass_ticks(engine, tick);
}

static void set_timer(engine_t *engine, int64_t time_ns)
{
    if (time_ns == engine->timer_set_ns)
        return;
    engine->timer_set_ns = time_ns;
    struct itimerspec setting = {0};
    if (time_ns != NEVER) {
        /* Zero would mean never. */
        time_ns = time_ns > 0 ? time_ns : 1;
        setting.it_value.tv_sec = time_ns / NS_PER_S;
        setting.it_value.tv_nsec = time_ns % NS_PER_S;
    }
    timerfd_settime(engine->timer, TFD_TIMER_ABSTIME, &setting, NULL);
}

/* When the next response that has been announced is on the wire. */
static int64_t next_response_ns(const engine_t *engine)
{
    const schedule_t *schedule = &engine->link.schedule;
    return schedule->number
               ? link_time_of(&engine->link, schedule->pending[schedule->front].from_tick)
               : NEVER;
}

/* At the earliest of what is due without anybody ringing. */
static void plan_wake_up(engine_t *engine)
{
    link_t *link = &engine->link;
    int64_t due_ns = NEVER, tick = engine->wake_tick;
    if (!engine->may_block)
        return;
    if (!engine->is_spinning) {
        const schedule_t *schedule = &link->schedule;
        if (!ring_is_empty(&engine->events)) {
            set_timer(engine, 1);
            return;
        }
        due_ns = engine->maintenance_ns;
        if (schedule->number) {
            int64_t early_ns = next_response_ns(engine) - EARLY_NS;
            due_ns = early_ns < due_ns ? early_ns : due_ns;
        }
        if (engine->deadline_tick < tick)
            tick = engine->deadline_tick;
        if (link_is_clocked(link) &&
            (engine->master.outstanding || !engine->master.in_session) &&
            engine->exchanged_tick + 1 < tick)
            tick = engine->exchanged_tick + 1;
    }
    /* Compared in ticks, because a tick far away has no time in 64 bits. */
    int64_t far_ns = due_ns == NEVER ? now_ns() + 3600 * NS_PER_S : due_ns;
    if (tick != NEVER && tick <= link_tick_at(link, far_ns))
        due_ns = link_time_of(link, tick) < far_ns ? link_time_of(link, tick) : far_ns;
    else if (tick != NEVER && due_ns == NEVER)
        due_ns = far_ns;
    set_timer(engine, due_ns);
}

/* Everything that has come due: the device, its frames, ours. */
static void work(engine_t *engine, int64_t time_ns)
{
    if (time_ns >= engine->maintenance_ns && maintain(engine, time_ns))
        engine->exchanged_tick = link_tick_at(&engine->link, time_ns);
    int64_t tick = link_tick_at(&engine->link, time_ns);
    exchange_due(engine, tick, time_ns);
    keep_limits(engine, tick);
    if (engine->link.attached && !link_is_clocked(&engine->link))
        send_news(engine, tick + 1);
}

/* --- the deciding thread --------------------------------------------------------------------- */

int engine_open(engine_t *engine)
{
    engine->event_descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    engine->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    engine->timer_set_ns = engine->wake_tick = NEVER;
    return engine->event_descriptor < 0 || engine->timer < 0 ? errno : 0;
}

static void prepare(engine_t *engine, int64_t time_ns)
{
    link_start(&engine->link, time_ns);
    master_start(&engine->master, engine->session, engine->silence_limit);
    engine->exchanged_tick = link_tick_at(&engine->link, time_ns);
    engine->deadline_tick = engine->event_tick = engine->command_tick = NEVER;
    engine->maintenance_ns = time_ns + MAINTENANCE_NS;
    engine->has_current = engine->has_sent = engine->is_refused = 0;
    engine->is_outstanding = 0;
    engine->stop = 0;
}

int engine_start(engine_t *engine)
{
    if (engine->is_running)
        return 0;
    int64_t time_ns = now_ns();
    prepare(engine, time_ns);
    if (engine->is_spinning) {
        engine->has_fifo = engine->priority > 0;
        int error = start_thread(engine, engine->priority);
        if (error == EPERM && engine->priority) {
            engine->has_fifo = 0;
            error = start_thread(engine, 0);
        }
        if (error)
            return error;
    }
    engine->is_running = 1;
    engine->owner = getpid();
    if (!engine->is_spinning) {
        work(engine, time_ns);
        plan_wake_up(engine);
    }
    return 0;
}

void engine_stop(engine_t *engine)
{
    item_t item;
    if (!engine->is_running)
        return;
    engine->is_running = engine->is_outstanding = 0;
    if (engine->owner != getpid())
        return; /* forked: the thread, and what the timer is set to, are those of the other */
    if (engine->is_spinning) {
        STORE(&engine->stop, 1);
        pthread_join(engine->thread, NULL);
    }
    engine->session = (engine->session + 1) & MAX_SESSION;
    while (ring_pop(&engine->commands, &item) || ring_pop(&engine->events, &item))
        ;
    set_timer(engine, NEVER);
}

void engine_close(engine_t *engine)
{
    engine_stop(engine);
    engine->is_closed = 1;
    link_close(&engine->link);
    if (engine->event_descriptor >= 0)
        close(engine->event_descriptor);
    if (engine->timer >= 0)
        close(engine->timer);
    engine->event_descriptor = engine->timer = -1;
}

int64_t engine_tick_at(engine_t *engine, int64_t time_ns)
{
    int64_t tick = link_tick_at(&engine->link, time_ns);
    if (tick > engine->latest_tick)
        engine->latest_tick = tick;
    return engine->latest_tick;
}

int engine_submit(engine_t *engine, uint32_t word)
{
    if (!engine->is_running)
        return SUBMIT_NOT_RUNNING;
    if (engine->is_outstanding)
        return SUBMIT_OUTSTANDING;
    engine->is_outstanding = 1;
    COUNT(engine->instructions, 1);
    if (engine->is_spinning) {
        ring_push(&engine->commands, (item_t){0, word, 0});
        return SUBMIT_DONE;
    }
    int64_t time_ns = now_ns();
    int64_t tick = link_tick_at(&engine->link, time_ns);
    exchange_due(engine, tick, time_ns);
    take_command(engine, word, tick);
    work(engine, time_ns);
    plan_wake_up(engine);
    return SUBMIT_DONE;
}

static void quieten(engine_t *engine)
{
    char rings[4096];
    uint64_t number;
    if (!engine->is_spinning) {
        if (engine->doorbell >= 0 && read(engine->doorbell, rings, sizeof rings) < 0 &&
            errno != EAGAIN)
            COUNT(engine->link_errors, 1);
    } else if (LOAD(&engine->is_signalled) &&
               read(engine->event_descriptor, &number, sizeof number) > 0) {
        /* Before the ring is looked at: an event pushed from now on is signalled again. If there
         * was nothing to read yet, it is about to be written, and stays for the next time. */
        __atomic_exchange_n(&engine->is_signalled, 0, __ATOMIC_ACQ_REL);
    }
}

int engine_poll(engine_t *engine, item_t *event)
{
    if (!engine->is_running)
        return 0;
    if (engine->may_block)
        quieten(engine);
    if (engine->is_spinning) {
        if (engine->wake_tick != NEVER &&
            link_tick_at(&engine->link, now_ns()) >= engine->wake_tick)
            engine_wake_at(engine, NEVER);
    } else {
        int64_t time_ns = now_ns();
        if (engine->wake_tick != NEVER && link_tick_at(&engine->link, time_ns) >= engine->wake_tick)
            engine->wake_tick = NEVER;
        if (ring_is_empty(&engine->events))
            work(engine, time_ns);
    }
    int found = ring_pop(&engine->events, event);
    if (found)
        engine->is_outstanding = 0;
    if (!engine->is_spinning)
        plan_wake_up(engine);
    return found;
}

void engine_wake_at(engine_t *engine, int64_t tick)
{
    int64_t now_tick = engine_tick_at(engine, now_ns());
    engine->wake_tick = tick < now_tick ? now_tick : tick;
    if (engine->is_running)
        plan_wake_up(engine);
}

void engine_may_block(engine_t *engine)
{
    if (engine->may_block)
        return;
    engine->may_block = 1;
    if (engine->is_running)
        plan_wake_up(engine);
}

void engine_run_ticks(engine_t *engine, int64_t ticks)
{
    prepare(engine, now_ns());
    for (int64_t tick = engine->exchanged_tick + 1; ticks > 0; ticks--, tick++) {
        count_exchange(engine, tick, 0);
        exchange(engine, tick);
    }
}
