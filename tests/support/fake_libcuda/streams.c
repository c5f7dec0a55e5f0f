/* Streams (a thread each), events, launches, capture and graphs. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake.h"

static __thread context *faulting;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void fault(int code) {
    pthread_mutex_lock(&fake_lock);
    if (faulting) faulting->fault = code;
    pthread_mutex_unlock(&fake_lock);
}

/* --- streams --------------------------------------------------------------------------------- */

static void *work(void *argument) {
    stream *s = argument;
    pthread_mutex_lock(&fake_lock);
    for (;;) {
        while (!s->first && !s->is_ending) pthread_cond_wait(&fake_changed, &fake_lock);
        command *c = s->first;
        if (!c) break;
        s->first = c->next;
        if (!s->first) s->last = NULL;
        pthread_mutex_unlock(&fake_lock);
        faulting = s->ctx;
        c->run(s->ctx, c);
        free(c);
        pthread_mutex_lock(&fake_lock);
        s->completed++;
        pthread_cond_broadcast(&fake_changed);
    }
    pthread_mutex_unlock(&fake_lock);
    return NULL;
}

stream *fake_new_stream(context *ctx) {
    stream *s = calloc(1, sizeof *s);
    s->ctx = ctx;
    pthread_create(&s->thread, NULL, work, s);
    return s;
}

/* Handles 0, 1 and 2 are the default streams: one here. */
stream *fake_stream(context *ctx, stream *handle) {
    if ((uintptr_t)handle > 2) return handle;
    pthread_mutex_lock(&fake_lock);
    if (!ctx->null_stream) ctx->null_stream = fake_new_stream(ctx);
    pthread_mutex_unlock(&fake_lock);
    return ctx->null_stream;
}

int fake_submit(stream *s, command c) {
    command *copy = malloc(sizeof *copy);
    *copy = c;
    copy->next = NULL;
    pthread_mutex_lock(&fake_lock);
    if (s->last) s->last->next = copy;
    else s->first = copy;
    s->last = copy;
    s->submitted++;
    pthread_cond_broadcast(&fake_changed);
    pthread_mutex_unlock(&fake_lock);
    return OK;
}

void fake_drain(stream *s) {
    pthread_mutex_lock(&fake_lock);
    const uint64_t until = s->submitted;
    while (s->completed < until) pthread_cond_wait(&fake_changed, &fake_lock);
    pthread_mutex_unlock(&fake_lock);
}

API int cuStreamCreate(stream **out, unsigned int flags) {
    (void)flags;
    ENTER_CONTEXT("cuStreamCreate");
    *out = fake_new_stream(ctx);
    pthread_mutex_lock(&fake_lock);
    fake_count_live("stream", 1);
    pthread_mutex_unlock(&fake_lock);
    return OK;
}

API int cuStreamDestroy_v2(stream *s) {
    context *ctx;
    int code = fake_enter_context("cuStreamDestroy", &ctx);
    pthread_mutex_lock(&fake_lock);
    fake_count_live("stream", -1);
    s->is_ending = 1;
    pthread_cond_broadcast(&fake_changed);
    pthread_mutex_unlock(&fake_lock);
    pthread_join(s->thread, NULL);
    free(s);
    return code;
}

API int cuStreamSynchronize(stream *s) {
    ENTER_CONTEXT("cuStreamSynchronize");
    fake_drain(fake_stream(ctx, s));
    return ctx->fault;
}

API int cuStreamQuery(stream *s) {
    ENTER_CONTEXT("cuStreamQuery");
    s = fake_stream(ctx, s);
    pthread_mutex_lock(&fake_lock);
    int is_done = s->completed == s->submitted;
    pthread_mutex_unlock(&fake_lock);
    return is_done ? OK : NOT_READY;
}

static void run_callback(context *ctx, command *c) {
    if (!ctx->fault) ((void (*)(void *))(uintptr_t)c->a)(c->b);
}

API int cuLaunchHostFunc(stream *s, void (*function)(void *), void *data) {
    ENTER_CONTEXT("cuLaunchHostFunc");
    command c = {.run = run_callback, .a = (void *)(uintptr_t)function, .b = data};
    return fake_submit(fake_stream(ctx, s), c);
}

/* --- events ---------------------------------------------------------------------------------- */

API int cuEventCreate(event **out, unsigned int flags) {
    ENTER_CONTEXT("cuEventCreate");
    *out = calloc(1, sizeof **out);
    (*out)->flags = flags;
    pthread_mutex_lock(&fake_lock);
    fake_count_live("event", 1);
    pthread_mutex_unlock(&fake_lock);
    return OK;
}

API int cuEventDestroy_v2(event *e) {
    context *ctx;
    int code = fake_enter_context("cuEventDestroy", &ctx);
    pthread_mutex_lock(&fake_lock);
    fake_count_live("event", -1);
    /* A stream may still hold it: wait as the real driver defers. */
    while (e->completed < e->recorded) pthread_cond_wait(&fake_changed, &fake_lock);
    pthread_mutex_unlock(&fake_lock);
    free(e);
    return code;
}

static void happen(event *e, uint64_t number) {
    pthread_mutex_lock(&fake_lock);
    e->time_ms = now_ms();
    e->completed = number;
    pthread_cond_broadcast(&fake_changed);
    pthread_mutex_unlock(&fake_lock);
}

static void run_record(context *ctx, command *c) {
    (void)ctx;
    happen(c->a, c->number);
}

static int record(context *ctx, event *e, stream *s, int is_external) {
    s = fake_stream(ctx, s);
    if (s->capture) {
        if (!is_external) {
            e->is_captured = 1;
            return OK;
        }
        node *n = calloc(1, sizeof *n);
        n->is_event = 1;
        n->event = e;
        return fake_add_node(s->capture, n);
    }
    e->is_captured = 0;
    pthread_mutex_lock(&fake_lock);
    command c = {.run = run_record, .a = e, .number = ++e->recorded};
    pthread_mutex_unlock(&fake_lock);
    return fake_submit(s, c);
}

API int cuEventRecord(event *e, stream *s) {
    ENTER_CONTEXT("cuEventRecord");
    return record(ctx, e, s, 0);
}

API int cuEventRecordWithFlags(event *e, stream *s, unsigned int flags) {
    ENTER_CONTEXT("cuEventRecordWithFlags");
    return record(ctx, e, s, flags & 1);
}

API int cuEventQuery(event *e) {
    ENTER_CONTEXT("cuEventQuery");
    if (e->is_captured) return CAPTURED_EVENT;
    pthread_mutex_lock(&fake_lock);
    int is_done = e->completed >= e->recorded;
    pthread_mutex_unlock(&fake_lock);
    return is_done ? ctx->fault : NOT_READY;
}

API int cuEventSynchronize(event *e) {
    ENTER_CONTEXT("cuEventSynchronize");
    pthread_mutex_lock(&fake_lock);
    while (e->completed < e->recorded) pthread_cond_wait(&fake_changed, &fake_lock);
    pthread_mutex_unlock(&fake_lock);
    return ctx->fault;
}

API int cuEventElapsedTime(float *out, event *start, event *end) {
    ENTER_CONTEXT("cuEventElapsedTime");
    if ((start->flags | end->flags) & 2 || !start->completed || !end->completed)
        return INVALID_HANDLE;
    *out = (float)(end->time_ms - start->time_ms);
    return OK;
}

API int cuEventElapsedTime_v2(float *out, event *start, event *end) {
    return cuEventElapsedTime(out, start, end);
}

static void run_wait(context *ctx, command *c) {
    const event *e = c->a;
    (void)ctx;
    pthread_mutex_lock(&fake_lock);
    while (e->completed < c->number) pthread_cond_wait(&fake_changed, &fake_lock);
    pthread_mutex_unlock(&fake_lock);
}

API int cuStreamWaitEvent(stream *s, event *e, unsigned int flags) {
    (void)flags;
    ENTER_CONTEXT("cuStreamWaitEvent");
    command c = {.run = run_wait, .a = e, .number = e->recorded};
    return fake_submit(fake_stream(ctx, s), c);
}

/* --- launches -------------------------------------------------------------------------------- */

void fake_run_node(context *ctx, const node *n) {
    if (n->is_event) {
        happen(n->event, n->event->recorded);
        return;
    }
    if (ctx->fault || !n->function) return;
    if (n->function->emulate) {
        static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
        const ep_host_launch *l = &n->launch;
        pthread_mutex_lock(&one_at_a_time);
        int status = n->function->emulate((void *)(uintptr_t)n->function->entry,
                                          (int)n->function->num_params, (void **)n->values, l->grid,
                                          l->block, l->cluster, (int)l->shared_bytes, 0);
        pthread_mutex_unlock(&one_at_a_time);
        if (status) fault(700); /* it wrote past its shared memory */
        return;
    }
    void *params[256];
    for (unsigned int i = 0; i < n->function->num_params; ++i) params[i] = &n->values[i];
    n->function->entry(params, &n->launch);
}

static void run_nodes(context *ctx, command *c) {
    for (const node *n = c->a; n; n = n->next) fake_run_node(ctx, n);
    fake_free_nodes(c->a);
}

static int check_launch(const context *ctx, const function *f, const ep_host_launch *l) {
    const unsigned int limit =
        f->max_dynamic_shared > 48 << 10 ? (unsigned int)f->max_dynamic_shared : 48u << 10;
    unsigned int blocks = 1;
    (void)ctx;
    for (int i = 0; i < 3; ++i) {
        if (!l->grid[i] || !l->block[i]) return INVALID_VALUE;
        if (l->grid[i] % l->cluster[i]) return INVALID_CLUSTER;
        blocks *= l->cluster[i];
    }
    if (blocks > (f->allows_large_cluster ? 16u : 8u)) return INVALID_CLUSTER;
    if (l->block[0] * l->block[1] * l->block[2] > 1024 || l->shared_bytes > limit)
        return INVALID_VALUE;
    return OK;
}

static int launch(context *ctx, function *f, ep_host_launch l, void **params, stream *s) {
    int code = check_launch(ctx, f, &l);
    if (code) return code;
    l.fault = fault;
    node *n = calloc(1, sizeof *n);
    n->function = f;
    n->launch = l;
    n->values = calloc(f->num_params + 1, 8);
    for (unsigned int i = 0; i < f->num_params; ++i) memcpy(&n->values[i], params[i], 8);
    s = fake_stream(ctx, s);
    if (s->capture) return fake_add_node(s->capture, n);
    command c = {.run = run_nodes, .a = n};
    return fake_submit(s, c);
}

API int cuLaunchKernel(function *f, unsigned int gx, unsigned int gy, unsigned int gz,
                       unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared,
                       stream *s, void **params, void **extra) {
    (void)extra;
    ENTER_CONTEXT("cuLaunchKernel");
    ep_host_launch l = {{gx, gy, gz}, {bx, by, bz}, {1, 1, 1}, shared, 0, NULL};
    return launch(ctx, f, l, params, s);
}

API int cuLaunchKernelEx(const launch_config *config, function *f, void **params, void **extra) {
    (void)extra;
    ENTER_CONTEXT("cuLaunchKernelEx");
    ep_host_launch l = {{0}, {0}, {1, 1, 1}, config->shared_bytes, 0, NULL};
    memcpy(l.grid, config->grid, sizeof l.grid);
    memcpy(l.block, config->block, sizeof l.block);
    for (unsigned int i = 0; i < config->num_attributes; ++i) {
        const launch_attribute *a = &config->attributes[i];
        if (a->id == 4) memcpy(l.cluster, a->value, sizeof l.cluster);
        else if (a->id == 6) l.is_dependent = (int)a->value[0];
        else return INVALID_VALUE;
    }
    return launch(ctx, f, l, params, config->stream);
}

/* --- capture and graphs ------------------------------------------------------------------------ */

int fake_add_node(graph *g, node *n) {
    if (g->last) g->last->next = n;
    else g->first = n;
    g->last = n;
    return OK;
}

node *fake_copy_nodes(const node *first) {
    graph copy = {NULL, NULL};
    for (const node *n = first; n; n = n->next) {
        node *c = malloc(sizeof *c);
        *c = *n;
        c->next = NULL;
        c->original = n->original ? n->original : n;
        if (n->values) {
            c->values = malloc(8 * (n->function->num_params + 1));
            memcpy(c->values, n->values, 8 * (size_t)n->function->num_params);
        }
        fake_add_node(&copy, c);
    }
    return copy.first;
}

void fake_free_nodes(node *first) {
    while (first) {
        node *next = first->next;
        free(first->values);
        free(first);
        first = next;
    }
}

API int cuStreamBeginCapture_v2(stream *s, int mode) {
    (void)mode;
    ENTER_CONTEXT("cuStreamBeginCapture");
    if ((uintptr_t)s <= 2) return NOT_SUPPORTED;
    if (s->capture) return INVALID_VALUE;
    s->capture = calloc(1, sizeof *s->capture);
    pthread_mutex_lock(&fake_lock);
    fake_count_live("graph", 1);
    pthread_mutex_unlock(&fake_lock);
    return OK;
}

API int cuStreamEndCapture(stream *s, graph **out) {
    ENTER_CONTEXT("cuStreamEndCapture");
    if (!s->capture) return CAPTURE_UNMATCHED;
    *out = s->capture;
    s->capture = NULL;
    return OK;
}

API int cuStreamIsCapturing(stream *s, int *out) {
    ENTER_CONTEXT("cuStreamIsCapturing");
    *out = (uintptr_t)s > 2 && s->capture ? 1 : 0;
    return OK;
}

API int cuStreamGetCaptureInfo_v2(stream *s, int *status, uint64_t *number, graph **out,
                                  node ***nodes, size_t *num) {
    ENTER_CONTEXT("cuStreamGetCaptureInfo");
    *status = s->capture ? 1 : 0;
    *number = 1;
    if (!s->capture) return OK;
    *out = s->capture;
    *nodes = &s->capture->last;
    *num = s->capture->last ? 1 : 0;
    return OK;
}

API int cuStreamGetCaptureInfo_v3(stream *s, int *status, uint64_t *number, graph **out,
                                  node ***nodes, const void **edges, size_t *num) {
    *edges = NULL;
    return cuStreamGetCaptureInfo_v2(s, status, number, out, nodes, num);
}

API int cuGraphInstantiateWithFlags(graph **out, graph *g, uint64_t flags) {
    (void)flags;
    ENTER_CONTEXT("cuGraphInstantiate");
    *out = calloc(1, sizeof **out);
    (*out)->first = fake_copy_nodes(g->first);
    pthread_mutex_lock(&fake_lock);
    fake_count_live("graph", 1);
    pthread_mutex_unlock(&fake_lock);
    return OK;
}

static int destroy(graph *g) {
    pthread_mutex_lock(&fake_lock);
    fake_count_live("graph", -1);
    pthread_mutex_unlock(&fake_lock);
    fake_free_nodes(g->first);
    free(g);
    return OK;
}

API int cuGraphDestroy(graph *g) {
    ENTER_CONTEXT("cuGraphDestroy");
    return destroy(g);
}

API int cuGraphExecDestroy(graph *g) {
    ENTER_CONTEXT("cuGraphExecDestroy");
    return destroy(g);
}

API int cuGraphUpload(graph *g, stream *s) {
    (void)g, (void)s;
    ENTER_CONTEXT("cuGraphUpload");
    return OK;
}

API int cuGraphLaunch(graph *g, stream *s) {
    ENTER_CONTEXT("cuGraphLaunch");
    s = fake_stream(ctx, s);
    if (s->capture) return NOT_SUPPORTED;
    node *nodes = fake_copy_nodes(g->first);
    pthread_mutex_lock(&fake_lock);
    for (node *n = nodes; n; n = n->next)
        if (n->is_event) n->event->recorded++;
    pthread_mutex_unlock(&fake_lock);
    command c = {.run = run_nodes, .a = nodes};
    return fake_submit(s, c);
}

typedef struct kernel_node_params {
    function *function;
    unsigned int grid[3], block[3], shared_bytes;
    void **params, **extra;
} kernel_node_params;

API int cuGraphExecKernelNodeSetParams(graph *g, const node *which, const kernel_node_params *p) {
    ENTER_CONTEXT("cuGraphExecKernelNodeSetParams");
    node *n = g->first;
    while (n && n->original != which) n = n->next;
    if (!n || n->is_event || !n->function || n->function != p->function) return INVALID_VALUE;
    memcpy(n->launch.grid, p->grid, sizeof p->grid);
    memcpy(n->launch.block, p->block, sizeof p->block);
    n->launch.shared_bytes = p->shared_bytes;
    for (unsigned int i = 0; i < n->function->num_params; ++i)
        memcpy(&n->values[i], p->params[i], 8);
    return OK;
}
