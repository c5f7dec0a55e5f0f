/* What the files of the stand-in libcuda share. One lock guards all state; kernels run without it. */
#ifndef FAKE_H
#define FAKE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "host_kernel.h"

#define API __attribute__((visibility("default")))
#define MAX_DEVICES 4
#define MAX_ATTRIBUTES 160

enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY = 209,
    INVALID_PTX = 218,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    NOT_SUPPORTED = 801,
    CAPTURE_UNMATCHED = 903,
    CAPTURED_EVENT = 907,
    INVALID_CLUSTER = 912
};

typedef struct context {
    int device, retained, is_primary;
    int fault; /* every call in this context returns it once it is set */
    struct stream *null_stream;
} context;

typedef struct module {
    void *library;
    int fd;
} module;

/* What an object of the CUDA emulation (tests/support/cuda_shim) exports to run its kernels. */
typedef int (*emulation)(void *kernel, int num, void **values, const unsigned *grid,
                         const unsigned *block, const unsigned *cluster, int shared_bytes,
                         int descending);

typedef struct function {
    ep_host_kernel entry;
    emulation emulate; /* NULL for EP_HOST_KERNEL */
    unsigned int num_params;
    int max_dynamic_shared, allows_large_cluster;
    struct function *next;
    module *owner;
} function;

typedef struct node {
    int is_event;
    struct event *event;
    function *function;
    ep_host_launch launch;
    uint64_t *values;
    const struct node *original;
    struct node *next;
} node;

typedef struct graph {
    node *first, *last;
} graph;

typedef struct event {
    unsigned int flags;
    int is_captured;
    uint64_t recorded, completed;
    double time_ms;
} event;

typedef struct command {
    void (*run)(context *ctx, struct command *self);
    void *a, *b;
    uint64_t number;
    size_t size;
    struct command *next;
} command;

typedef struct stream {
    context *ctx;
    pthread_t thread;
    command *first, *last;
    uint64_t submitted, completed;
    int is_ending;
    graph *capture;
} stream;

typedef struct launch_attribute {
    unsigned int id, pad, value[16];
} launch_attribute;

typedef struct launch_config {
    unsigned int grid[3], block[3], shared_bytes;
    stream *stream;
    const launch_attribute *attributes;
    unsigned int num_attributes;
} launch_config;

extern pthread_mutex_t fake_lock;
extern pthread_cond_t fake_changed;
extern int fake_device_attributes[MAX_DEVICES][MAX_ATTRIBUTES];

/* Counts the call; the code that it is told to fail with, or OK. Takes the lock. */
int fake_enter(const char *name);
/* As fake_enter, and the present context must be sound. */
int fake_enter_context(const char *name, context **ctx);
void fake_count_live(const char *kind, int change); /* needs the lock */
int fake_submit(stream *s, command c);
stream *fake_stream(context *ctx, stream *handle);
void fake_drain(stream *s);
stream *fake_new_stream(context *ctx);
void fake_end_stream(stream *s);
int fake_add_node(graph *g, node *n);
void fake_run_node(context *ctx, const node *n);
node *fake_copy_nodes(const node *first);
void fake_free_nodes(node *first);

#define ENTER(name)                       \
    do {                                  \
        int code_ = fake_enter(name);     \
        if (code_) return code_;          \
    } while (0)
#define ENTER_CONTEXT(name)                          \
    context *ctx;                                    \
    do {                                             \
        int code_ = fake_enter_context(name, &ctx);  \
        if (code_) return code_;                     \
    } while (0)

#endif
