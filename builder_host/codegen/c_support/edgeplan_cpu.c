/* The CPU code ABI's other half: worker pool, programs, streams, events. See edgeplan_cpu.h.
 *
 * Counters are never reset. A step with N units has handed out (r - 1) * N units before run r and
 * r * N after it, and so for finished units. A worker that is late and still believes in run r - 1
 * finds every step finished and leaves; it can neither take a unit nor block anybody, so the end of
 * a run waits for units, not for workers (a worker that lost its core costs nothing).
 */
#define _GNU_SOURCE
#include "edgeplan_cpu.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "futex words are low halves of counters");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics");

/* Waiting. Sleeping and waking costs 5 to 50 us, a spin burns a core that others may need. */
#define SPIN_STEP_NS 100000  /* for units of a step that others compute */
#define SPIN_IDLE_NS 50000   /* of a worker between two runs */
#define SPIN_STREAM_NS 20000 /* of a stream's thread, and of who waits for a stream */
#define PROMPT_NS 100000     /* a caller that synchronises so soon after enqueuing is prompt */
#define PROMPT_IN_A_ROW 3    /* prompt calls before a stream's thread naps */
#define NAP_NS 1000000       /* of a stream's thread beside a prompt caller */
#define IDLE_NAPS 100        /* naps without a command, after which the thread sleeps again */
#define SPIN_POLITE_NS 10000 /* from here on the core is offered to other threads */
#define WAKE_LIMIT_NS 1000000 /* before a measured run; a worker may have no core just then */
#define PAUSES_PER_CLOCK 32

#define QUEUE_COMMANDS 256
#define QUEUE_ADDRESSES 4096
#define THREAD_STACK_BYTES (2 << 20)

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void futex_wait(const void *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(const void *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* A counter that only grows, with the number of threads that sleep on its low half.
 * Sleeping and waking meet through sequential consistency: the sleeper announces itself and then
 * reads the counter, the other side moves the counter and then reads the number of sleepers. */
typedef struct {
    _Atomic uint64_t value;
    _Atomic uint32_t sleepers;
} counter;

static void counter_wait(counter *c, uint64_t target, int64_t spin_ns) {
    if (atomic_load_explicit(&c->value, memory_order_acquire) >= target) return;
    int64_t start = now_ns(), waited = 0;
    while (waited < spin_ns) {
        for (int i = 0; i < PAUSES_PER_CLOCK; ++i) {
            if (atomic_load_explicit(&c->value, memory_order_acquire) >= target) return;
            pause_briefly();
        }
        waited = now_ns() - start;
        if (waited > SPIN_POLITE_NS) sched_yield();
    }
    atomic_fetch_add(&c->sleepers, 1);
    for (;;) {
        uint64_t value = atomic_load(&c->value);
        if (value >= target) break;
        futex_wait(&c->value, (uint32_t)value);
    }
    atomic_fetch_sub(&c->sleepers, 1);
}

/* Sleep until the counter is notified while it differs from `seen`, but no longer than wait_ns. */
static void counter_nap(counter *c, uint64_t seen, int64_t wait_ns) {
    struct timespec limit = {wait_ns / 1000000000, wait_ns % 1000000000};
    atomic_fetch_add(&c->sleepers, 1);
    syscall(SYS_futex, &c->value, FUTEX_WAIT_PRIVATE, (uint32_t)seen, &limit, NULL, 0);
    atomic_fetch_sub(&c->sleepers, 1);
}

static void counter_notify(counter *c) {
    if (atomic_load(&c->sleepers)) futex_wake(&c->value, INT_MAX);
}

/* ---------------------------------------------------------------- pool and programs */

typedef struct {
    edgeplan_kernel function;
    void *const *args;
    uint64_t num_units;
    uint64_t min_units;
    uint64_t flags;
    alignas(64) _Atomic uint64_t taken; /* units handed out, over all runs */
    counter done;                       /* units finished, over all runs */
} step;

struct edgeplan_program {
    /* First, so that the stream of one shared object can run the program of another. */
    void (*run_program)(edgeplan_program *, void *const *, int64_t *);
    int64_t num_bindings;
    edgeplan_pool *pool;
    step *steps;
    int64_t num_steps;
    void **args;
    edgeplan_patch *patches;
    int64_t *first_patch; /* num_bindings + 1 */
    void **bound;         /* addresses that args hold now */
    char *scratch;
    int64_t scratch_stride;
    int is_shareable; /* some step has more units than one worker takes at once */
    alignas(64) _Atomic uint64_t run;
    _Atomic int has_barriers; /* a barrier after each step, for per-step times */
};

typedef struct {
    alignas(64) _Atomic(edgeplan_program *) program; /* what it works on: not to be freed */
    edgeplan_pool *pool;
    pthread_t thread;
    int32_t index;
    int32_t cpu; /* -1: not pinned */
} worker;

struct edgeplan_pool {
    alignas(64) counter published; /* runs offered to the workers */
    _Atomic(edgeplan_program *) program;
    _Atomic int is_stopping;
    alignas(64) pthread_mutex_t lock; /* one run at a time */
    int32_t num_workers;
    int32_t num_cpus;
    int32_t *cpus;
    worker *workers; /* num_workers - 1 */
    int32_t num_started;
};

static void *allocate_zeroed(size_t size) {
    void *memory = NULL;
    int code = posix_memalign(&memory, 64, size ? size : 1);
    if (code) {
        errno = code;
        return NULL;
    }
    return memset(memory, 0, size);
}

static void *copy_of(const void *source, int64_t count, size_t elem_bytes) {
    void *memory = allocate_zeroed((size_t)count * elem_bytes);
    if (memory && count) memcpy(memory, source, (size_t)count * elem_bytes);
    return memory;
}

static void compute_units(step *s, uint64_t run, uint64_t num_workers, void *scratch) {
    const uint64_t num_units = s->num_units, end = run * num_units, base = end - num_units;
    uint64_t next = atomic_load_explicit(&s->taken, memory_order_relaxed), finished = 0;
    while (next < end) {
        /* Large shares first, small ones at the end: few grabs, short tail. A half keeps
         * 60 steps of 16 us at 1.9 times one worker on two cores, a quarter at 1.7 times. */
        uint64_t left = end - next, share = left / (2 * num_workers);
        if (share < s->min_units) share = s->min_units;
        if (share > left) share = left;
        if (!atomic_compare_exchange_weak_explicit(&s->taken, &next, next + share,
                                                   memory_order_relaxed, memory_order_relaxed))
            continue;
        s->function(s->args, (int64_t)(next - base), (int64_t)(next - base + share), scratch);
        finished += share;
        next = atomic_load_explicit(&s->taken, memory_order_relaxed);
    }
    if (finished && atomic_fetch_add(&s->done.value, finished) + finished == end)
        counter_notify(&s->done);
}

static void work(edgeplan_program *p, int32_t worker_index, uint64_t run, int64_t *step_ns) {
    void *scratch = p->scratch + worker_index * p->scratch_stride;
    const uint64_t num_workers = (uint64_t)p->pool->num_workers;
    const int has_barriers = atomic_load_explicit(&p->has_barriers, memory_order_relaxed);
    int64_t first = 0, start = step_ns ? now_ns() : 0;
    for (int64_t i = 0; i < p->num_steps; ++i) {
        compute_units(&p->steps[i], run, num_workers, scratch);
        int is_last = i + 1 == p->num_steps;
        if (!is_last && (p->steps[i + 1].flags & EDGEPLAN_STEP_CONCURRENT) && !has_barriers)
            continue;
        for (; first <= i; ++first)
            counter_wait(&p->steps[first].done, run * p->steps[first].num_units, SPIN_STEP_NS);
        if (step_ns) {
            int64_t end = now_ns();
            step_ns[i] = end - start;
            start = end;
        }
    }
}

static void run_alone(edgeplan_program *p, int64_t *step_ns) {
    int64_t start = step_ns ? now_ns() : 0;
    for (int64_t i = 0; i < p->num_steps; ++i) {
        step *s = &p->steps[i];
        if (s->num_units) s->function(s->args, 0, (int64_t)s->num_units, p->scratch);
        if (step_ns) {
            int64_t end = now_ns();
            step_ns[i] = end - start;
            start = end;
        }
    }
}

static void *worker_main(void *argument) {
    worker *self = argument;
    edgeplan_pool *pool = self->pool;
    uint64_t seen = 0;
    for (;;) {
        counter_wait(&pool->published, seen + 1, SPIN_IDLE_NS);
        if (atomic_load(&pool->is_stopping)) return NULL;
        seen = atomic_load(&pool->published.value);
        edgeplan_program *program = atomic_load(&pool->program);
        if (!program) continue;
        atomic_store(&self->program, program);
        if (atomic_load(&pool->program) == program) {
            uint64_t run = atomic_load_explicit(&program->run, memory_order_acquire);
            work(program, self->index, run, NULL);
        }
        atomic_store(&self->program, NULL);
    }
}

static void pin(worker *w, int32_t cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (pthread_setaffinity_np(w->thread, sizeof set, &set) == 0) w->cpu = cpu;
}

static int is_taken(const edgeplan_pool *pool, int32_t cpu) {
    for (int32_t i = 0; i < pool->num_started; ++i)
        if (pool->workers[i].cpu == cpu) return 1;
    return 0;
}

/* Give each worker a core of its own, and none the caller's. The caller itself is never pinned. */
static void place_workers(edgeplan_pool *pool) {
    if (pool->num_cpus < pool->num_workers) return;
    int32_t caller = sched_getcpu();
    for (int32_t i = 0; i < pool->num_started; ++i) {
        worker *w = &pool->workers[i];
        if (w->cpu >= 0 && w->cpu != caller) continue;
        for (int32_t j = 0; j < pool->num_cpus; ++j) {
            int32_t cpu = pool->cpus[j];
            if (cpu == caller || cpu < 0 || cpu >= CPU_SETSIZE || is_taken(pool, cpu)) continue;
            pin(w, cpu);
            break;
        }
    }
}

static int start_thread(pthread_t *thread, void *(*function)(void *), void *argument,
                        const char *name) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int code = pthread_attr_init(&attributes);
    if (code) return code;
    pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    sigfillset(&all); /* signals are the caller's business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(thread, &attributes, function, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!code) pthread_setname_np(*thread, name);
    return code;
}

EXPORT uint32_t edgeplan_cpu_abi_version(void) { return EDGEPLAN_CPU_ABI_VERSION; }

EXPORT void edgeplan_pool_destroy(edgeplan_pool *pool) {
    if (!pool) return;
    atomic_store(&pool->is_stopping, 1);
    atomic_fetch_add(&pool->published.value, 1);
    futex_wake(&pool->published.value, INT_MAX);
    for (int32_t i = 0; i < pool->num_started; ++i) pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool->cpus);
    free(pool);
}

EXPORT edgeplan_pool *edgeplan_pool_create(int32_t num_workers, const int32_t *cpus,
                                           int32_t num_cpus) {
    edgeplan_pool *pool = allocate_zeroed(sizeof *pool);
    if (!pool) return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pool->num_workers = num_workers;
    pool->num_cpus = num_cpus;
    pool->cpus = copy_of(cpus, num_cpus, sizeof *cpus);
    pool->workers = allocate_zeroed((size_t)num_workers * sizeof *pool->workers);
    int code = pool->cpus && pool->workers ? 0 : ENOMEM;
    for (int32_t i = 0; i + 1 < num_workers && !code; ++i) {
        worker *w = &pool->workers[i];
        w->pool = pool;
        w->index = i + 1;
        w->cpu = -1;
        code = start_thread(&w->thread, worker_main, w, "edgeplan-worker");
        if (!code) pool->num_started = i + 1;
    }
    if (code) {
        edgeplan_pool_destroy(pool);
        errno = code;
        return NULL;
    }
    place_workers(pool);
    return pool;
}

EXPORT int32_t edgeplan_pool_worker_cpu(edgeplan_pool *pool, int32_t worker_index) {
    if (worker_index < 1 || worker_index > pool->num_started) return -1;
    return pool->workers[worker_index - 1].cpu;
}

static void free_program(edgeplan_program *p) {
    free(p->steps);
    free(p->args);
    free(p->patches);
    free(p->first_patch);
    free(p->bound);
    free(p);
}

EXPORT edgeplan_program *edgeplan_program_create(edgeplan_pool *pool,
                                                 const edgeplan_step_desc *steps,
                                                 int64_t num_steps, void *const *args,
                                                 int64_t num_args, const edgeplan_patch *patches,
                                                 int64_t num_patches, int64_t num_bindings,
                                                 void *scratch, int64_t scratch_stride) {
    edgeplan_program *p = allocate_zeroed(sizeof *p);
    if (!p) return NULL;
    p->run_program = edgeplan_program_run;
    p->pool = pool;
    p->num_steps = num_steps;
    p->num_bindings = num_bindings;
    p->scratch = scratch;
    p->scratch_stride = scratch_stride;
    p->steps = allocate_zeroed((size_t)num_steps * sizeof *p->steps);
    p->args = copy_of(args, num_args, sizeof *args);
    p->patches = copy_of(patches, num_patches, sizeof *patches);
    p->first_patch = allocate_zeroed((size_t)(num_bindings + 1) * sizeof *p->first_patch);
    p->bound = allocate_zeroed((size_t)num_bindings * sizeof *p->bound);
    if (!p->steps || !p->args || !p->patches || !p->first_patch || !p->bound) {
        free_program(p);
        errno = ENOMEM;
        return NULL;
    }
    for (int64_t i = 0, b = 0; b <= num_bindings; ++b) {
        while (i < num_patches && patches[i].binding < b) ++i;
        p->first_patch[b] = i;
    }
    for (int64_t i = 0; i < num_steps; ++i) {
        step *s = &p->steps[i];
        s->function = steps[i].function;
        s->args = p->args + steps[i].first_arg;
        s->num_units = (uint64_t)steps[i].num_units;
        s->min_units = steps[i].min_units > 0 ? (uint64_t)steps[i].min_units : 1;
        s->flags = steps[i].flags;
        if (s->num_units > s->min_units) p->is_shareable = 1;
        if (s->num_units && i && (s->flags & EDGEPLAN_STEP_CONCURRENT)) p->is_shareable = 1;
    }
    return p;
}

EXPORT void edgeplan_program_destroy(edgeplan_program *p) {
    if (!p) return;
    edgeplan_pool *pool = p->pool;
    pthread_mutex_lock(&pool->lock);
    edgeplan_program *expected = p;
    atomic_compare_exchange_strong(&pool->program, &expected, NULL);
    for (int32_t i = 0; i < pool->num_started; ++i)
        while (atomic_load(&pool->workers[i].program) == p) sched_yield();
    pthread_mutex_unlock(&pool->lock);
    free_program(p);
}

static void bind(edgeplan_program *p, void *const *bindings) {
    for (int64_t b = 0; b < p->num_bindings; ++b) {
        if (p->bound[b] == bindings[b]) continue;
        p->bound[b] = bindings[b];
        for (int64_t i = p->first_patch[b]; i < p->first_patch[b + 1]; ++i)
            p->args[p->patches[i].arg] = (char *)bindings[b] + p->patches[i].offset_bytes;
    }
}

EXPORT void edgeplan_program_run(edgeplan_program *p, void *const *bindings, int64_t *step_ns) {
    edgeplan_pool *pool = p->pool;
    bind(p, bindings);
    if (pool->num_workers == 1 || !p->is_shareable) {
        run_alone(p, step_ns);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    place_workers(pool);
    uint64_t run = atomic_load_explicit(&p->run, memory_order_relaxed) + 1;
    atomic_store_explicit(&p->has_barriers, step_ns != NULL, memory_order_relaxed);
    atomic_store_explicit(&p->run, run, memory_order_release);
    atomic_store(&pool->program, p);
    atomic_fetch_add(&pool->published.value, 1);
    counter_notify(&pool->published);
    work(p, 0, run, step_ns);
    pthread_mutex_unlock(&pool->lock);
}

/* Let sleeping workers spin again: in a row of runs they would not have fallen asleep. */
static void wake_workers(edgeplan_pool *pool) {
    const int64_t start = now_ns();
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->program, NULL);
    atomic_fetch_add(&pool->published.value, 1);
    counter_notify(&pool->published);
    while (atomic_load(&pool->published.sleepers) && now_ns() - start < WAKE_LIMIT_NS)
        pause_briefly();
    pthread_mutex_unlock(&pool->lock);
}

EXPORT void edgeplan_program_measure(edgeplan_program *p, void *const *bindings, int64_t repeats,
                                     void *flush, int64_t flush_bytes, int64_t *run_ns) {
    for (int64_t r = 0; r < repeats; ++r) {
        volatile char *line = flush;
        for (int64_t i = 0; flush && i < flush_bytes; i += 64) line[i] = (char)(line[i] + 1);
        if (p->is_shareable) wake_workers(p->pool);
        int64_t start = now_ns();
        edgeplan_program_run(p, bindings, NULL);
        run_ns[r] = now_ns() - start;
    }
}

/* ---------------------------------------------------------------- events and streams */

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
    edgeplan_program *program = c->object;
    switch (c->kind) {
    case RUN:
        program->run_program(program, s->addresses + c->first_address % QUEUE_ADDRESSES, NULL);
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
                   (uint64_t)program->num_bindings);
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
