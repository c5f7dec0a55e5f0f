/* Stress of the CPU support code, meant for -fsanitize=thread: wrong sums exit with 1, races with 66. */
#include "edgeplan_cpu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { UNITS = 37, WORKERS = 4, STEPS = 6, RUNS = 400 };

/* out[u] = in[0] + ... + in[UNITS - 1] + 1 for each unit: needs the whole step before. */
static void sum_step(void *const *args, int64_t begin, int64_t end, void *scratch) {
    const int64_t *in = args[0];
    int64_t *out = args[1], *private_sum = scratch;
    for (int64_t u = begin; u < end; ++u) {
        *private_sum = 1;
        for (int i = 0; i < UNITS; ++i) *private_sum += in[i] % 1000;
        out[u] = *private_sum;
    }
}

static void fail(const char *what, int64_t got, int64_t want) {
    fprintf(stderr, "%s: got %lld, want %lld\n", what, (long long)got, (long long)want);
    exit(1);
}

typedef struct {
    edgeplan_program *program;
    int64_t rows[STEPS - 1][UNITS];
    _Alignas(64) char scratch[WORKERS][64];
} network;

/* Steps 2 and 3 run beside each other; both feed nothing but the check and step 4. */
static network *make_network(edgeplan_pool *pool) {
    network *n = aligned_alloc(64, (sizeof(network) + 63) / 64 * 64);
    edgeplan_step_desc steps[STEPS];
    void *args[2 * STEPS];
    for (int i = 0; i < STEPS; ++i) {
        int source = i == 3 ? 1 : i - 1;
        args[2 * i] = i ? n->rows[source] : NULL;
        args[2 * i + 1] = i + 1 < STEPS ? n->rows[i] : NULL;
        steps[i] = (edgeplan_step_desc){sum_step, 2 * i, UNITS, i == 4 ? UNITS : 1,
                                        i == 3 ? EDGEPLAN_STEP_CONCURRENT : 0};
    }
    const edgeplan_patch patches[2] = {{0, 0, 0}, {2 * STEPS - 1, 1, 0}};
    n->program = edgeplan_program_create(pool, steps, STEPS, args, 2 * STEPS, patches, 2, 2,
                                         n->scratch, 64);
    return n;
}

static int64_t expected(int64_t input) {
    int64_t rows[STEPS];
    for (int i = 0; i < STEPS; ++i) {
        int source = i == 3 ? 1 : i - 1;
        rows[i] = 1 + UNITS * ((i ? rows[source] : input) % 1000);
    }
    return rows[STEPS - 1];
}

typedef struct {
    edgeplan_event *event;
    int64_t value;
} shared_event;

static shared_event shared;

static int64_t wait_for(int64_t (*attempt)(edgeplan_stream *, network *, void *const *),
                        edgeplan_stream *s, network *n, void *const *bindings) {
    for (;;) {
        int64_t ticket = attempt(s, n, bindings);
        if (ticket > 0) return ticket;
        edgeplan_stream_wait_space(s);
    }
}

static int64_t try_run(edgeplan_stream *s, network *n, void *const *bindings) {
    return edgeplan_stream_try_run(s, n->program, bindings);
}

static void *user(void *argument) {
    int64_t seed = (int64_t)(intptr_t)argument;
    edgeplan_pool *pool = edgeplan_pool_create(1 + (int32_t)(seed % WORKERS), NULL, 0);
    edgeplan_stream *stream = edgeplan_stream_create();
    edgeplan_event *event = edgeplan_event_create();
    int64_t(*in)[UNITS] = calloc(8, sizeof *in), (*out)[UNITS] = calloc(8, sizeof *out);
    for (int run = 0; run < RUNS / 8; ++run) {
        network *n = make_network(pool); /* programs come and go while workers may be late */
        network *other = make_network(pool);
        for (int k = 0; k < 8; ++k) {
            for (int i = 0; i < UNITS; ++i) in[k][i] = seed + run * 8 + k;
            void *bindings[2] = {in[k], out[k]};
            wait_for(try_run, stream, k % 2 ? n : other, bindings);
        }
        edgeplan_stream_try_record(stream, event);
        int64_t last = edgeplan_stream_enqueued(stream);
        if (run % 3 == 0) edgeplan_event_synchronize(event);
        if (run % 3 == 1) edgeplan_stream_synchronize(stream, last / 2 + 1);
        edgeplan_stream_synchronize(stream, last);
        if (!edgeplan_event_query(event)) fail("event", 0, 1);
        for (int k = 0; k < 8; ++k)
            for (int i = 0; i < UNITS; ++i)
                if (out[k][i] != expected(in[k][i]))
                    fail("sum", out[k][i], expected(in[k][i]));
        edgeplan_program_destroy(n->program);
        edgeplan_program_destroy(other->program);
        free(n);
        free(other);
    }
    edgeplan_stream_destroy(stream);
    edgeplan_event_destroy(event);
    edgeplan_pool_destroy(pool);
    free(in);
    free(out);
    return NULL;
}

static void write_shared(void *argument) { shared.value += (int64_t)(intptr_t)argument; }

/* Two streams take turns through events: no other protection of `shared`. */
static void take_turns(void) {
    edgeplan_stream *streams[2] = {edgeplan_stream_create(), edgeplan_stream_create()};
    shared.event = edgeplan_event_create();
    for (int64_t i = 0; i < 50; ++i) {
        edgeplan_stream *s = streams[i % 2];
        if (edgeplan_stream_try_wait(s, shared.event) <= 0) fail("wait", 0, 1);
        if (edgeplan_stream_try_call(s, write_shared, (void *)(intptr_t)i) <= 0) fail("call", 0, 1);
        if (edgeplan_stream_try_record(s, shared.event) <= 0) fail("record", 0, 1);
    }
    for (int i = 0; i < 2; ++i)
        edgeplan_stream_synchronize(streams[i], edgeplan_stream_enqueued(streams[i]));
    if (shared.value != 49 * 50 / 2) fail("turns", shared.value, 49 * 50 / 2);
    for (int i = 0; i < 2; ++i) edgeplan_stream_destroy(streams[i]);
    edgeplan_event_destroy(shared.event);
}

/* Several threads enqueue to, and help, one stream. */
static edgeplan_stream *common;
static _Alignas(64) int64_t common_calls;

static void count_call(void *argument) {
    (void)argument;
    common_calls += 1; /* commands of one stream never overlap */
}

static void *enqueuer(void *argument) {
    (void)argument;
    for (int i = 0; i < RUNS; ++i) {
        int64_t ticket;
        while ((ticket = edgeplan_stream_try_call(common, count_call, NULL)) == 0)
            edgeplan_stream_wait_space(common);
        if (i % 7 == 0) edgeplan_stream_synchronize(common, ticket);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[6];
    take_turns();
    for (intptr_t i = 0; i < 4; ++i) pthread_create(&threads[i], NULL, user, (void *)i);
    for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);
    common = edgeplan_stream_create();
    for (int i = 0; i < 3; ++i) pthread_create(&threads[i], NULL, enqueuer, NULL);
    for (int i = 0; i < 3; ++i) pthread_join(threads[i], NULL);
    edgeplan_stream_synchronize(common, edgeplan_stream_enqueued(common));
    if (common_calls != 3 * RUNS) fail("calls", common_calls, 3 * RUNS);
    edgeplan_stream_destroy(common);
    return 0;
}
