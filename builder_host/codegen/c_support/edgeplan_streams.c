/* Streams and events. See edgeplan_cpu.h. */
#define _GNU_SOURCE
#include "edgeplan_cpu.h"
#include "edgeplan_threads.h"

#include <stdalign.h>

#define SPIN_STREAM_NS 20000 /* of a stream's thread, and of who waits for a stream */
#define PROMPT_NS 100000     /* a caller that synchronises so soon after enqueuing is prompt */
#define PROMPT_IN_A_ROW 3    /* prompt calls before a stream's thread naps */
#define NAP_NS 1000000       /* of a stream's thread beside a prompt caller */
#define IDLE_NAPS 100        /* naps without a command, after which the thread sleeps again */

#define QUEUE_COMMANDS 256
#define QUEUE_ADDRESSES 4096

struct edgeplan_event {
    _Atomic uint64_t requested; /* records enqueued */
    counter happened;
    _Atomic int64_t time_ns;
};

typedef struct {
    enum { RUN, RECORD, WAIT, CALL } kind;
    void *object;          /* program, event or argument */
    uint64_t value;        /* WAIT, RECORD: which record */
    void (*call)(void *);
    uint64_t first_address; /* RUN: its binding addresses in the ring */
    uint64_t end_address;   /* addresses up to here are free once it is done */
} command;

struct edgeplan_stream {
    alignas(64) counter completed;
    _Atomic uint64_t enqueued;
    _Atomic uint64_t addresses_freed;
    alignas(64) counter alarm; /* what the stream's thread sleeps on */
    _Atomic int is_executing;  /* held by the one thread that executes commands */
    _Atomic int is_stopping;
    _Atomic int64_t enqueued_ns; /* when the last command was enqueued */
    _Atomic uint32_t prompt;     /* prompt calls of synchronize in a row */
    _Atomic int is_napping;      /* the thread looks for commands by itself every NAP_NS */
    pthread_mutex_t lock; /* of those who enqueue */
    uint64_t addresses_used;
    pthread_t thread;
    command commands[QUEUE_COMMANDS];
    void *addresses[QUEUE_ADDRESSES];
};

static void execute(edgeplan_stream *s, command *c) {
    edgeplan_event *event = c->object;
    edgeplan_program_head *program = c->object;
    switch (c->kind) {
    case RUN:
        program->run(c->object, s->addresses + c->first_address % QUEUE_ADDRESSES, NULL);
        break;
    case RECORD:
        atomic_store(&event->time_ns, now_ns());
        /* A record on another stream may have been counted first: keep the larger. */
        for (uint64_t seen = atomic_load(&event->happened.value); seen < c->value;)
            if (atomic_compare_exchange_weak(&event->happened.value, &seen, c->value)) break;
        counter_notify(&event->happened);
        break;
    case WAIT:
        counter_wait(&event->happened, c->value, SPIN_STREAM_NS);
        break;
    case CALL:
        c->call(c->object);
        break;
    }
}

static int has_commands(edgeplan_stream *s) {
    return atomic_load(&s->completed.value) < atomic_load(&s->enqueued);
}

static int acquire(edgeplan_stream *s) {
    int expected = 0;
    return atomic_compare_exchange_strong(&s->is_executing, &expected, 1);
}

static void ring(edgeplan_stream *s) {
    atomic_fetch_add(&s->alarm.value, 1);
    counter_notify(&s->alarm);
}

/* The caller holds is_executing. */
static void execute_until(edgeplan_stream *s, uint64_t ticket) {
    uint64_t done = atomic_load(&s->completed.value);
    while (done < ticket) {
        command *c = &s->commands[done % QUEUE_COMMANDS];
        uint64_t end_address = c->end_address;
        execute(s, c);
        atomic_store(&s->addresses_freed, end_address);
        done = atomic_fetch_add(&s->completed.value, 1) + 1;
        counter_notify(&s->completed);
    }
    atomic_store(&s->is_executing, 0);
}

/* Waking this thread costs the one who enqueues 25 to 90 us where an idle core must be woken, and
 * waking that caller again as much. A prompt caller would do better to execute the command itself,
 * so after a few prompt calls the thread naps, and enqueuing does not wake it. A command that
 * nobody waits for then starts up to NAP_NS late, once.
 * No command is lost: the thread leaves naps by clearing is_napping and then looks for commands;
 * enqueue publishes the command and then reads is_napping. */
static void nap_beside_caller(edgeplan_stream *s) {
    uint64_t enqueued = atomic_load(&s->enqueued);
    int idle = 0;
    atomic_store(&s->is_napping, 1);
    while (idle < IDLE_NAPS && atomic_load(&s->prompt) >= PROMPT_IN_A_ROW &&
           !atomic_load(&s->is_stopping)) {
        uint64_t heard = atomic_load(&s->alarm.value);
        counter_nap(&s->alarm, heard, NAP_NS);
        uint64_t now = atomic_load(&s->enqueued);
        if (has_commands(s) && !atomic_load(&s->is_executing)) break; /* nobody came for it */
        idle = now == enqueued ? idle + 1 : 0;
        enqueued = now;
    }
    atomic_store(&s->prompt, 0);
    atomic_store(&s->is_napping, 0);
}

static void *stream_main(void *argument) {
    edgeplan_stream *s = argument;
    /* Spin only after work of its own: beside a helper that executes, spinning takes its core. */
    int64_t spin_ns = 0;
    for (;;) {
        uint64_t heard = atomic_load(&s->alarm.value);
        if (has_commands(s)) {
            if (acquire(s)) {
                execute_until(s, atomic_load(&s->enqueued));
                spin_ns = SPIN_STREAM_NS;
                continue;
            }
        } else if (atomic_load(&s->is_stopping)) {
            return NULL;
        }
        if (atomic_load(&s->prompt) >= PROMPT_IN_A_ROW) {
            nap_beside_caller(s);
            continue;
        }
        counter_wait(&s->alarm, heard + 1, spin_ns);
        spin_ns = 0;
    }
}

EXPORT edgeplan_stream *edgeplan_stream_create(void) {
    edgeplan_stream *s = allocate_zeroed(sizeof *s);
    if (!s) return NULL;
    pthread_mutex_init(&s->lock, NULL);
    int code = start_thread(&s->thread, stream_main, s, "edgeplan-stream");
    if (code) {
        pthread_mutex_destroy(&s->lock);
        free(s);
        errno = code;
        return NULL;
    }
    return s;
}

EXPORT void edgeplan_stream_destroy(edgeplan_stream *s) {
    if (!s) return;
    atomic_store(&s->is_stopping, 1);
    ring(s);
    pthread_join(s->thread, NULL);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static int64_t enqueue(edgeplan_stream *s, command c, void *const *addresses, uint64_t count) {
    if (count > QUEUE_ADDRESSES) return -1;
    pthread_mutex_lock(&s->lock);
    uint64_t ticket = atomic_load(&s->enqueued) + 1;
    uint64_t first = s->addresses_used;
    if (first % QUEUE_ADDRESSES + count > QUEUE_ADDRESSES) /* a block never wraps around */
        first += QUEUE_ADDRESSES - first % QUEUE_ADDRESSES;
    uint64_t waiting = ticket - 1 - atomic_load(&s->completed.value);
    if (waiting >= QUEUE_COMMANDS ||
        (waiting && first + count - atomic_load(&s->addresses_freed) > QUEUE_ADDRESSES)) {
        pthread_mutex_unlock(&s->lock);
        return 0;
    }
    if (c.kind == RECORD)
        c.value = atomic_fetch_add(&((edgeplan_event *)c.object)->requested, 1) + 1;
    if (count) memcpy(s->addresses + first % QUEUE_ADDRESSES, addresses, count * sizeof *addresses);
    s->addresses_used = first + count;
    c.first_address = first;
    c.end_address = first + count;
    s->commands[(ticket - 1) % QUEUE_COMMANDS] = c;
    atomic_store(&s->enqueued_ns, now_ns());
    atomic_store(&s->enqueued, ticket);
    pthread_mutex_unlock(&s->lock);
    if (!atomic_load(&s->is_napping)) ring(s);
    return (int64_t)ticket;
}

EXPORT int64_t edgeplan_stream_try_run(edgeplan_stream *s, edgeplan_program *program,
                                       void *const *bindings) {
    return enqueue(s, (command){.kind = RUN, .object = program}, bindings,
                   (uint64_t)((edgeplan_program_head *)program)->num_bindings);
}

EXPORT int64_t edgeplan_stream_try_record(edgeplan_stream *s, edgeplan_event *event) {
    return enqueue(s, (command){.kind = RECORD, .object = event}, NULL, 0);
}

EXPORT int64_t edgeplan_stream_try_wait(edgeplan_stream *s, edgeplan_event *event) {
    command c = {.kind = WAIT, .object = event, .value = atomic_load(&event->requested)};
    return enqueue(s, c, NULL, 0);
}

EXPORT int64_t edgeplan_stream_try_call(edgeplan_stream *s, void (*function)(void *),
                                        void *argument) {
    return enqueue(s, (command){.kind = CALL, .object = argument, .call = function}, NULL, 0);
}

EXPORT void edgeplan_stream_wait_space(edgeplan_stream *s) {
    /* Half of what waits: who enqueues faster than the stream runs sleeps in long stretches. */
    uint64_t completed = atomic_load(&s->completed.value);
    uint64_t waiting = atomic_load(&s->enqueued) - completed;
    edgeplan_stream_synchronize(s, (int64_t)(completed + (waiting + 1) / 2));
}

EXPORT void edgeplan_stream_synchronize(edgeplan_stream *s, int64_t ticket) {
    const uint64_t target = (uint64_t)ticket;
    if (atomic_load(&s->completed.value) < target) {
        int is_prompt = target == atomic_load(&s->enqueued) &&
                        now_ns() - atomic_load(&s->enqueued_ns) < PROMPT_NS;
        atomic_store(&s->prompt, is_prompt ? atomic_load(&s->prompt) + 1 : 0);
    }
    while (atomic_load(&s->completed.value) < target) {
        if (!acquire(s)) {
            /* Its thread, or another helper, is at work; the thread takes over from a helper. */
            counter_wait(&s->completed, target, SPIN_STREAM_NS);
            return;
        }
        execute_until(s, target);
        if (has_commands(s)) ring(s);
    }
}

EXPORT int64_t edgeplan_stream_completed(edgeplan_stream *s) {
    return (int64_t)atomic_load(&s->completed.value);
}

EXPORT int64_t edgeplan_stream_enqueued(edgeplan_stream *s) {
    return (int64_t)atomic_load(&s->enqueued);
}

EXPORT edgeplan_event *edgeplan_event_create(void) { return allocate_zeroed(sizeof(edgeplan_event)); }

EXPORT void edgeplan_event_destroy(edgeplan_event *event) { free(event); }

EXPORT int32_t edgeplan_event_query(edgeplan_event *event) {
    return atomic_load(&event->happened.value) >= atomic_load(&event->requested);
}

EXPORT void edgeplan_event_synchronize(edgeplan_event *event) {
    counter_wait(&event->happened, atomic_load(&event->requested), SPIN_STREAM_NS);
}

EXPORT int64_t edgeplan_event_time_ns(edgeplan_event *event) {
    return atomic_load(&event->time_ns);
}
