/* The Python face of the engine, and of its parts for their tests: qnodeos.engine._native.
 *
 * Only the limited API of Python 3.11 is used (setup.py asks for it), so one build serves all
 * later versions.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What the constructors below do happens in tp_new, so that nobody meets a half-made object. */
static PyObject *made(PyTypeObject *type, PyObject *arguments, PyObject *keywords, initproc fill)
{
    PyObject *self = PyType_GenericNew(type, arguments, keywords);
    if (self && fill(self, arguments, keywords))
        Py_CLEAR(self);
    return self;
}

static PyObject *pair_or_none(int found, int64_t first, int64_t second)
{
    if (!found)
        Py_RETURN_NONE;
    return Py_BuildValue("LL", (long long)first, (long long)second);
}

static void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* --- Ring ------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    ring_t *ring;
} RingObject;

static void *new_aligned(size_t bytes)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes)) {
        PyErr_NoMemory();
        return NULL;
    }
    return memset(memory, 0, bytes);
}

static int ring_fill(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"start", NULL};
    unsigned long long start = 0;
    RingObject *object = (RingObject *)self;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|K", names, &start))
        return -1;
    if (!(object->ring = new_aligned(sizeof(ring_t))))
        return -1;
    object->ring->head = object->ring->head_seen = start;
    object->ring->tail = object->ring->tail_seen = start;
    return 0;
}

static PyObject *ring_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    return made(type, arguments, keywords, ring_fill);
}

static void ring_dealloc(PyObject *self)
{
    free(((RingObject *)self)->ring);
    free_object(self);
}

static PyObject *ring_push_item(PyObject *self, PyObject *arguments)
{
    long long tick, value;
    if (!PyArg_ParseTuple(arguments, "LL", &tick, &value))
        return NULL;
    return PyBool_FromLong(ring_push(((RingObject *)self)->ring, (item_t){tick, value, 0}));
}

static PyObject *ring_pop_item(PyObject *self, PyObject *unused)
{
    (void)unused;
    item_t item = {0, 0, 0};
    int found = ring_pop(((RingObject *)self)->ring, &item);
    return pair_or_none(found, item.tick, item.value);
}

static PyMethodDef ring_methods[] = {
    {"push", ring_push_item, METH_VARARGS, "Push a pair of numbers; False if the ring is full."},
    {"pop", ring_pop_item, METH_NOARGS, "Pop the oldest pair, None if there is none."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_doc, "A bounded queue between two threads."},
    {Py_tp_new, ring_new},
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_methods, ring_methods},
    {0, NULL},
};

static PyType_Spec ring_spec = {
    "qnodeos.engine._native.Ring", sizeof(RingObject), 0, Py_TPFLAGS_DEFAULT, ring_slots};

/* --- SlotRing ----------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    slot_ring_t ring;
    Py_buffer buffer;
    int is_held;
} SlotRingObject;

static PyObject *slot_ring_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    SlotRingObject *object = (SlotRingObject *)self;
    if (object->is_held) {
        object->is_held = 0;
        PyBuffer_Release(&object->buffer);
    }
    Py_RETURN_NONE;
}

static int slot_ring_fill(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"memory", "slots_at", "head", "tail", NULL};
    SlotRingObject *object = (SlotRingObject *)self;
    PyObject *memory;
    Py_ssize_t slots_at, head, tail;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "Onnn", names, &memory, &slots_at, &head,
                                     &tail))
        return -1;
    if (PyObject_GetBuffer(memory, &object->buffer, PyBUF_WRITABLE))
        return -1;
    Py_ssize_t words = object->buffer.len / 8;
    Py_ssize_t bytes = CHANNEL_SLOTS * (Py_ssize_t)sizeof(slot_t);
    if (slots_at < 0 || slots_at % 8 || slots_at > object->buffer.len - bytes || head < 0 ||
        head >= words || tail < 0 || tail >= words || (uintptr_t)object->buffer.buf % 8) {
        PyBuffer_Release(&object->buffer);
        PyErr_SetString(PyExc_ValueError, "the ring does not fit in its memory");
        return -1;
    }
    unsigned char *start = object->buffer.buf;
    object->ring = (slot_ring_t){(slot_t *)(start + slots_at), (uint64_t *)start + head,
                                 (uint64_t *)start + tail, 0, 0};
    object->is_held = 1;
    return 0;
}

static PyObject *slot_ring_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    return made(type, arguments, keywords, slot_ring_fill);
}

static void slot_ring_dealloc(PyObject *self)
{
    Py_XDECREF(slot_ring_release(self, NULL));
    free_object(self);
}

static slot_ring_t *held(PyObject *self)
{
    SlotRingObject *object = (SlotRingObject *)self;
    if (object->is_held)
        return &object->ring;
    PyErr_SetString(PyExc_ValueError, "the memory of the ring has been released");
    return NULL;
}

static PyObject *slot_ring_push(PyObject *self, PyObject *arguments)
{
    long long tick;
    unsigned int frame;
    slot_ring_t *ring = held(self);
    if (!ring || !PyArg_ParseTuple(arguments, "LI", &tick, &frame))
        return NULL;
    return PyBool_FromLong(slot_push(ring, tick, frame));
}

static PyObject *slot_ring_pop(PyObject *self, PyObject *unused)
{
    (void)unused;
    int64_t tick = 0;
    uint32_t frame = 0;
    slot_ring_t *ring = held(self);
    if (!ring)
        return NULL;
    int found = slot_pop(ring, &tick, &frame);
    return pair_or_none(found, tick, frame);
}

static PyObject *slot_ring_skip_all(PyObject *self, PyObject *unused)
{
    (void)unused;
    slot_ring_t *ring = held(self);
    if (!ring)
        return NULL;
    slot_skip_all(ring);
    Py_RETURN_NONE;
}

static PyMethodDef slot_ring_methods[] = {
    {"push", slot_ring_push, METH_VARARGS, "Write; False if there is no room."},
    {"pop", slot_ring_pop, METH_NOARGS, "Read the next, None if there is none yet."},
    {"skip_all", slot_ring_skip_all, METH_NOARGS, "Read all there is, and forget it."},
    {"release", slot_ring_release, METH_NOARGS, "Let the memory go."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef slot_ring_members[] = {
    {"damaged", T_ULONGLONG, offsetof(SlotRingObject, ring.damaged), READONLY,
     "Slots that were left out."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slot_ring_slots[] = {
    {Py_tp_doc, "One direction of a channel, in shared memory."},
    {Py_tp_new, slot_ring_new},
    {Py_tp_dealloc, slot_ring_dealloc},
    {Py_tp_methods, slot_ring_methods},
    {Py_tp_members, slot_ring_members},
    {0, NULL},
};

static PyType_Spec slot_ring_spec = {"qnodeos.engine._native.SlotRing", sizeof(SlotRingObject), 0,
                                     Py_TPFLAGS_DEFAULT, slot_ring_slots};

/* --- FrameMaster -------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    master_t master;
} MasterObject;

static int master_fill(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"session", "silence_limit", NULL};
    unsigned int session;
    long long silence_limit;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "IL", names, &session, &silence_limit))
        return -1;
    master_start(&((MasterObject *)self)->master, session, silence_limit);
    return 0;
}

static PyObject *master_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    return made(type, arguments, keywords, master_fill);
}

static PyObject *response_or_none(int response)
{
    if (response == NO_RESPONSE)
        Py_RETURN_NONE;
    return PyLong_FromLong(response);
}

static PyObject *master_submit_word(PyObject *self, PyObject *word)
{
    unsigned long value = PyLong_AsUnsignedLong(word);
    if (PyErr_Occurred())
        return NULL;
    master_submit(&((MasterObject *)self)->master, (uint32_t)value & 0xFFFFF);
    Py_RETURN_NONE;
}

static PyObject *master_outgoing(PyObject *self, PyObject *unused)
{
    (void)unused;
    master_t *master = &((MasterObject *)self)->master;
    master_sent(master);
    return PyLong_FromUnsignedLong(master->frame);
}

static PyObject *master_take(PyObject *self, PyObject *frame)
{
    unsigned long value = PyLong_AsUnsignedLong(frame);
    if (PyErr_Occurred())
        return NULL;
    return response_or_none(master_incoming(&((MasterObject *)self)->master, (uint32_t)value));
}

static PyObject *master_take_repeated(PyObject *self, PyObject *frames)
{
    long long number = PyLong_AsLongLong(frames);
    if (PyErr_Occurred())
        return NULL;
    return response_or_none(master_repeated(&((MasterObject *)self)->master, number));
}

static PyObject *master_take_nothing(PyObject *self, PyObject *frames)
{
    long long number = PyLong_AsLongLong(frames);
    if (PyErr_Occurred())
        return NULL;
    return response_or_none(master_silent(&((MasterObject *)self)->master, number));
}

static PyObject *master_abandon(PyObject *self, PyObject *unused)
{
    (void)unused;
    return response_or_none(master_give_up(&((MasterObject *)self)->master));
}

static PyObject *master_news(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(master_has_news(&((MasterObject *)self)->master));
}

static PyObject *master_idle(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!((MasterObject *)self)->master.outstanding);
}

static PyMethodDef master_methods[] = {
    {"submit", master_submit_word, METH_O, "Hand over the word of the next instruction."},
    {"outgoing", master_outgoing, METH_NOARGS, "The frame to send at this tick."},
    {"incoming", master_take, METH_O, "Take a frame; outcome | detail << 4 if it brought one."},
    {"repeated", master_take_repeated, METH_O, "The frame taken last came this often more."},
    {"silent", master_take_nothing, METH_O, "No frame came at so many ticks."},
    {"give_up", master_abandon, METH_NOARGS, "Open the next session."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef master_members[] = {
    {"corrupted_frames", T_ULONGLONG, offsetof(MasterObject, master.corrupted_frames), READONLY,
     "Damaged frames received."},
    {"device_restarts", T_ULONGLONG, offsetof(MasterObject, master.device_restarts), READONLY,
     "How often the device has reported a restart."},
    {"device_tick_low", T_UINT, offsetof(MasterObject, master.device_tick_low), READONLY,
     "Low bits of the tick in the last valid frame."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef master_properties[] = {
    {"idle", master_idle, NULL, "Whether nothing is outstanding.", NULL},
    {"has_news", master_news, NULL, "Whether the next frame says something new.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot master_slots[] = {
    {Py_tp_doc, "The QNPU's end of the wire."},
    {Py_tp_new, master_new},
    {Py_tp_dealloc, free_object},
    {Py_tp_methods, master_methods},
    {Py_tp_members, master_members},
    {Py_tp_getset, master_properties},
    {0, NULL},
};

static PyType_Spec master_spec = {"qnodeos.engine._native.FrameMaster", sizeof(MasterObject), 0,
                                  Py_TPFLAGS_DEFAULT, master_slots};

/* --- Engine ------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    engine_t *engine;
} EngineObject;

static engine_t *engine_of(PyObject *self)
{
    return ((EngineObject *)self)->engine;
}

/* For what needs the link. */
static engine_t *open_engine_of(PyObject *self)
{
    if (!engine_of(self)->is_closed)
        return engine_of(self);
    PyErr_SetString(PyExc_ValueError, "the engine has been closed");
    return NULL;
}

static int fail(int error)
{
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static void discard(engine_t *engine)
{
    Py_BEGIN_ALLOW_THREADS
    engine_close(engine);
    Py_END_ALLOW_THREADS
    free(engine);
}

static int open_link(engine_t *engine, const char *kind, PyObject *path, PyObject *bell,
                     const char *page, Py_ssize_t page_bytes, unsigned char spi_mode,
                     unsigned int speed_hz)
{
    if (!strcmp(kind, "loopback")) {
        engine->link.kind = LINK_LOOPBACK;
        engine->link.attached = 1;
        return 0;
    }
    char *path_text = path ? PyBytes_AsString(path) : NULL;
    char *bell_text = bell ? PyBytes_AsString(bell) : NULL;
    if (!strcmp(kind, "spidev") && path_text)
        return link_open_spidev(&engine->link, path_text, spi_mode, speed_hz);
    if (!strcmp(kind, "shm") && path_text && bell_text && page && page_bytes == PAGE_BYTES) {
        int error =
            link_open_shm(&engine->link, path_text, bell_text, (const unsigned char *)page);
        if (!error)
            /* One after that of the QNPU before, whose frames cannot be confused with ours. */
            engine->session = (uint32_t)link_generation(&engine->link) & MAX_SESSION;
        return error;
    }
    return EINVAL;
}

static int engine_fill(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"kind", "spinning", "core", "priority", "doorbell", "silence_limit",
                            "busy_limit", "session", "share_ns", "tick_ns", "answer_ticks", "path", "bell",
                            "page", "spi_mode", "speed_hz", NULL};
    const char *kind, *page = NULL;
    Py_ssize_t page_bytes = 0;
    int spinning, core, priority, doorbell;
    long long silence_limit, busy_limit, share_ns, tick_ns = 0, answer_ticks = 0;
    unsigned int session, speed_hz = 0;
    unsigned char spi_mode = 0;
    PyObject *path = NULL, *bell = NULL;
    EngineObject *object = (EngineObject *)self;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "spiiiLLIL|LLO&O&y#bI", names, &kind,
                                     &spinning, &core, &priority, &doorbell, &silence_limit,
                                     &busy_limit, &session, &share_ns, &tick_ns, &answer_ticks,
                                     PyUnicode_FSConverter, &path, PyUnicode_FSConverter, &bell,
                                     &page, &page_bytes, &spi_mode, &speed_hz))
        return -1;
    int result = -1;
    engine_t *engine = new_aligned(sizeof(engine_t));
    if (engine) {
        engine->is_spinning = spinning;
        engine->core = core;
        engine->priority = priority;
        engine->doorbell = doorbell;
        engine->silence_limit = silence_limit;
        engine->busy_limit = busy_limit;
        engine->session = session & MAX_SESSION;
        engine->link.tick_ns = tick_ns > 0 ? tick_ns : 1;
        engine->share_ns = share_ns;
        engine->link.answer_ticks = answer_ticks;
        engine->link.spi = engine->event_descriptor = engine->timer = -1;
        engine->latest_tick = INT64_MIN;
        int error = open_link(engine, kind, path, bell, page, page_bytes, spi_mode, speed_hz);
        error = error ? error : engine_open(engine);
        if (error) {
            discard(engine);
            result = fail(error);
        } else {
            object->engine = engine;
            result = 0;
        }
    }
    Py_XDECREF(path);
    Py_XDECREF(bell);
    return result;
}

static PyObject *engine_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    return made(type, arguments, keywords, engine_fill);
}

static void engine_dealloc(PyObject *self)
{
    if (engine_of(self))
        discard(engine_of(self));
    free_object(self);
}

static PyObject *engine_start_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    engine_t *engine = open_engine_of(self);
    if (!engine)
        return NULL;
    int error = engine_start(engine);
    if (error) {
        fail(error);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *engine_stop_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_BEGIN_ALLOW_THREADS
    engine_stop(engine_of(self));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *engine_close_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_BEGIN_ALLOW_THREADS
    engine_close(engine_of(self));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *engine_submit_method(PyObject *self, PyObject *word)
{
    unsigned long value = PyLong_AsUnsignedLong(word);
    if (PyErr_Occurred())
        return NULL;
    engine_t *engine = open_engine_of(self);
    return engine ? PyLong_FromLong(engine_submit(engine, (uint32_t)value & 0xFFFFF)) : NULL;
}

static PyObject *engine_poll_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    item_t event = {0, 0, 0};
    engine_t *engine = open_engine_of(self);
    if (!engine)
        return NULL;
    if (!engine_poll(engine, &event))
        Py_RETURN_NONE;
    return Py_BuildValue("LLL", (long long)event.tick, (long long)event.value,
                         (long long)event.command_tick);
}

static PyObject *engine_now_tick(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLongLong(engine_tick_at(engine_of(self), now_ns()));
}

static PyObject *engine_tick_reading(PyObject *self, PyObject *unused)
{
    (void)unused;
    int64_t time_ns = now_ns();
    return Py_BuildValue("LL", (long long)engine_tick_at(engine_of(self), time_ns),
                         (long long)time_ns);
}

static PyObject *engine_wake_at_method(PyObject *self, PyObject *tick)
{
    long long value = tick == Py_None ? NEVER : PyLong_AsLongLong(tick);
    if (PyErr_Occurred())
        return NULL;
    engine_wake_at(engine_of(self), value);
    Py_RETURN_NONE;
}

static PyObject *engine_filenos(PyObject *self, PyObject *unused)
{
    (void)unused;
    engine_t *engine = engine_of(self);
    engine_may_block(engine);
    return Py_BuildValue("ii", engine->is_spinning ? engine->event_descriptor : engine->doorbell,
                         engine->timer);
}

static PyObject *engine_take_skips(PyObject *self, PyObject *unused)
{
    (void)unused;
    item_t skip;
    PyObject *skips = PyList_New(0);
    while (skips && ring_pop(&engine_of(self)->skips, &skip)) {
        PyObject *pair = pair_or_none(1, skip.tick, skip.value);
        if (!pair || PyList_Append(skips, pair))
            Py_CLEAR(skips);
        Py_XDECREF(pair);
    }
    return skips;
}

static PyObject *engine_counters(PyObject *self, PyObject *unused)
{
    (void)unused;
    engine_t *engine = engine_of(self);
    uint64_t damaged = engine->link.channel ? LOAD(&engine->link.channel->responses.damaged) : 0;
    return Py_BuildValue(
        "{sOsisOsKsKsKsKsKsKsKsKsKsKsKsKsO}", "has_fifo",
        LOAD(&engine->has_fifo) ? Py_True : Py_False,
        "session", (int)engine->session, "is_running", engine->is_running ? Py_True : Py_False,
        "ticks", LOAD(&engine->ticks), "skipped", LOAD(&engine->skipped), "skips_unread",
        LOAD(&engine->skips_unread), "stalls", LOAD(&engine->stalls), "instructions",
        LOAD(&engine->instructions), "events", LOAD(&engine->answered), "given_up",
        LOAD(&engine->master.given_up), "busy_timeouts", LOAD(&engine->busy_timeouts),
        "corrupted_frames", LOAD(&engine->master.corrupted_frames) + damaged, "device_restarts",
        LOAD(&engine->master.device_restarts) + LOAD(&engine->link.returns), "ring_overflows",
        LOAD(&engine->overflows), "link_errors", LOAD(&engine->link_errors), "device_attached",
        LOAD(&engine->link.attached) ? Py_True : Py_False);
}

static PyObject *read_histogram(histogram_t *histogram)
{
    PyObject *counts = PyList_New(BUCKETS);
    for (int bucket = 0; counts && bucket < BUCKETS; bucket++) {
        PyObject *count = PyLong_FromUnsignedLongLong(LOAD(&histogram->counts[bucket]));
        if (!count || PyList_SetItem(counts, bucket, count))
            Py_CLEAR(counts);
    }
    return counts ? Py_BuildValue("NL", counts, (long long)LOAD(&histogram->maximum)) : NULL;
}

static PyObject *engine_lateness(PyObject *self, PyObject *unused)
{
    (void)unused;
    return read_histogram(&engine_of(self)->lateness);
}

static PyObject *engine_reaction(PyObject *self, PyObject *unused)
{
    (void)unused;
    return read_histogram(&engine_of(self)->reaction);
}

static PyObject *engine_inject_stall(PyObject *self, PyObject *duration)
{
    long long value = PyLong_AsLongLong(duration);
    if (PyErr_Occurred())
        return NULL;
    STORE(&engine_of(self)->stall_wish_ns, value);
    Py_RETURN_NONE;
}

static PyObject *engine_run_ticks_method(PyObject *self, PyObject *ticks)
{
    long long value = PyLong_AsLongLong(ticks);
    if (PyErr_Occurred())
        return NULL;
    engine_t *engine = open_engine_of(self);
    if (!engine)
        return NULL;
    if (engine->is_running) {
        PyErr_SetString(PyExc_ValueError, "the engine is running");
        return NULL;
    }
    engine_run_ticks(engine, value);
    Py_RETURN_NONE;
}

static PyObject *engine_idle(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!engine_of(self)->is_outstanding);
}

static PyMethodDef engine_methods[] = {
    {"start", engine_start_method, METH_NOARGS, "Begin to exchange frames."},
    {"stop", engine_stop_method, METH_NOARGS, "Stop exchanging frames."},
    {"close", engine_close_method, METH_NOARGS, "Give everything back."},
    {"submit", engine_submit_method, METH_O, "0 done, 1 one is outstanding, 2 not running."},
    {"poll", engine_poll_method, METH_NOARGS,
     "(tick, outcome | detail << 4, tick of the command), or None."},
    {"now_tick", engine_now_tick, METH_NOARGS, "The device tick now."},
    {"tick_reading", engine_tick_reading, METH_NOARGS, "(tick, ns)."},
    {"wake_at", engine_wake_at_method, METH_O, "Be readable at a tick."},
    {"filenos", engine_filenos, METH_NOARGS, "(doorbell or event, timer)."},
    {"take_skips", engine_take_skips, METH_NOARGS, "[(tick, slots), ...]."},
    {"counters", engine_counters, METH_NOARGS, "What was counted."},
    {"lateness", engine_lateness, METH_NOARGS, "(counts, maximum), in ns."},
    {"reaction", engine_reaction, METH_NOARGS, "(counts, maximum), in ticks."},
    {"inject_stall", engine_inject_stall, METH_O, "Stall the tick thread once, for tests: ns."},
    {"run_ticks", engine_run_ticks_method, METH_O, "Exchange without waiting, to measure."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef engine_properties[] = {
    {"idle", engine_idle, NULL, "Whether nothing is outstanding.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot engine_slots[] = {
    {Py_tp_doc, "A tick engine."},
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_methods, engine_methods},
    {Py_tp_getset, engine_properties},
    {0, NULL},
};

static PyType_Spec engine_spec = {"qnodeos.engine._native.Engine", sizeof(EngineObject), 0,
                                  Py_TPFLAGS_DEFAULT, engine_slots};

/* --- the module --------------------------------------------------------------------------- */

static int module_exec(PyObject *module)
{
    PyType_Spec *specs[] = {&ring_spec, &slot_ring_spec, &master_spec, &engine_spec};
    frames_prepare();
    for (size_t place = 0; place < sizeof specs / sizeof *specs; place++) {
        PyObject *type = PyType_FromSpec(specs[place]);
        if (!type)
            return -1;
        int result = PyModule_AddType(module, (PyTypeObject *)type);
        Py_DECREF(type);
        if (result)
            return -1;
    }
    if (PyModule_AddStringConstant(module, "SOURCE_DIGEST", SOURCE_DIGEST))
        return -1;
    return PyModule_AddIntConstant(module, "RING_ITEMS", RING_ITEMS);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "qnodeos.engine._native",
    .m_doc = "The tick engine in C.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module_definition);
}
