/* Worker pool and programs. See edgeplan_cpu.h.
 *
 * Counters are never reset. A step with N units has handed out (r - 1) * N units before run r and
 * r * N after it, and so for finished units. A worker that is late and still believes in run r - 1
 * finds every step finished and leaves; it can neither take a unit nor block anybody, so the end of
 * a run waits for units, not for workers (a worker that lost its core costs nothing).
 */
#define _GNU_SOURCE
#include "edgeplan_cpu.h"
#include "edgeplan_threads.h"

#include <stdalign.h>

#define SPIN_STEP_NS 100000   /* for units of a step that others compute */
#define SPIN_IDLE_NS 50000    /* of a worker between two runs */
#define WAKE_LIMIT_NS 1000000 /* before a measured run; a worker may have no core just then */

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
    edgeplan_program_head head; /* first: what streams know of it */
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
    p->head.run = edgeplan_program_run;
    p->pool = pool;
    p->num_steps = num_steps;
    p->head.num_bindings = num_bindings;
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
    for (int64_t b = 0; b < p->head.num_bindings; ++b) {
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
