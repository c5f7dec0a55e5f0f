/* CPU code ABI, version 1: what every shared object of a CPU plan exports beside its kernels.
 *
 * runtime_edge/device/cpu_native.py mirrors these declarations; a change of any structure or
 * signature is a new EDGEPLAN_CPU_ABI_VERSION.
 *
 * Rules
 * - A kernel computes units [unit_begin, unit_end) of one step. Units are independent.
 * - A program is a table of steps with its argument pointers. One run at a time per program.
 * - A pool is num_workers - 1 threads; the thread that calls run is worker 0. One worker means no
 *   threads and no atomic operations.
 * - A stream executes commands in order on its own thread, or on a thread that synchronises with it.
 * - Memory is taken by the create functions only; running and enqueuing take none.
 */
#ifndef EDGEPLAN_CPU_H
#define EDGEPLAN_CPU_H

#include <stdint.h>

#define EDGEPLAN_CPU_ABI_VERSION 1

typedef void (*edgeplan_kernel)(void *const *args, int64_t unit_begin, int64_t unit_end,
                                void *scratch);

/* The step may run beside the step before it: no barrier in between. */
#define EDGEPLAN_STEP_CONCURRENT 1u

/* One step as the caller describes it. */
typedef struct {
    edgeplan_kernel function;
    int64_t first_arg;  /* index of its first argument in the program's argument array */
    int64_t num_units;  /* 0 is allowed: nothing runs */
    int64_t min_units;  /* smallest share that a worker takes, >= 1 */
    uint64_t flags;     /* EDGEPLAN_STEP_* */
} edgeplan_step_desc;

/* args[arg] = address of `binding` + offset_bytes, kept true at each run. */
typedef struct {
    int64_t arg;
    int64_t binding;
    int64_t offset_bytes;
} edgeplan_patch;

typedef struct edgeplan_pool edgeplan_pool;
typedef struct edgeplan_program edgeplan_program;
typedef struct edgeplan_stream edgeplan_stream;
typedef struct edgeplan_event edgeplan_event;

uint32_t edgeplan_cpu_abi_version(void);

/* What every program begins with: a stream runs programs of other shared objects, too. */
typedef struct {
    void (*run)(edgeplan_program *program, void *const *bindings, int64_t *step_ns);
    int64_t num_bindings;
} edgeplan_program_head;

/* num_workers >= 1; cpus: the cores that workers may be pinned to, the preferred first. With fewer
 * cores than workers nothing is pinned. NULL when threads or memory are refused (errno says why).
 * Worker threads are never pinned to the core on which the caller of run is at that moment. */
edgeplan_pool *edgeplan_pool_create(int32_t num_workers, const int32_t *cpus, int32_t num_cpus);
void edgeplan_pool_destroy(edgeplan_pool *pool); /* after its programs */
int32_t edgeplan_pool_worker_cpu(edgeplan_pool *pool, int32_t worker); /* -1: not pinned */

/* All arrays are copied. args: initial values, patched ones included. patches: ascending by
 * binding. scratch: 64-byte aligned, num_workers * scratch_stride bytes. NULL: out of memory. */
edgeplan_program *edgeplan_program_create(edgeplan_pool *pool, const edgeplan_step_desc *steps,
                                          int64_t num_steps, void *const *args, int64_t num_args,
                                          const edgeplan_patch *patches, int64_t num_patches,
                                          int64_t num_bindings, void *scratch,
                                          int64_t scratch_stride);
void edgeplan_program_destroy(edgeplan_program *program);

/* One inference on the calling thread and the pool. bindings: num_bindings addresses.
 * step_ns: NULL, or num_steps durations in ns are written (each step then ends with a barrier). */
void edgeplan_program_run(edgeplan_program *program, void *const *bindings, int64_t *step_ns);

/* `repeats` runs, the duration of each in ns. flush: NULL, or a buffer that is written between
 * runs, outside the measured time, so that caches hold nothing of the program. */
void edgeplan_program_measure(edgeplan_program *program, void *const *bindings, int64_t repeats,
                              void *flush, int64_t flush_bytes, int64_t *run_ns);

edgeplan_stream *edgeplan_stream_create(void); /* NULL: see errno */
void edgeplan_stream_destroy(edgeplan_stream *stream); /* finishes what was enqueued */

/* Commands. The result is the ticket (1, 2, ...), 0 when the queue is full just now, or -1 when
 * the program has more bindings than a queue holds. try_* never blocks. */
int64_t edgeplan_stream_try_run(edgeplan_stream *stream, edgeplan_program *program,
                                void *const *bindings);
int64_t edgeplan_stream_try_record(edgeplan_stream *stream, edgeplan_event *event);
int64_t edgeplan_stream_try_wait(edgeplan_stream *stream, edgeplan_event *event);
int64_t edgeplan_stream_try_call(edgeplan_stream *stream, void (*function)(void *), void *argument);
void edgeplan_stream_wait_space(edgeplan_stream *stream); /* until a command fits again */

/* Returns when the command with this ticket is done; executes commands itself while the stream's
 * own thread is not at work. */
void edgeplan_stream_synchronize(edgeplan_stream *stream, int64_t ticket);
int64_t edgeplan_stream_completed(edgeplan_stream *stream); /* ticket of the last finished one */
int64_t edgeplan_stream_enqueued(edgeplan_stream *stream);  /* ticket of the last one */

edgeplan_event *edgeplan_event_create(void);
void edgeplan_event_destroy(edgeplan_event *event); /* after every command that uses it */
/* 1: every record enqueued so far has happened (also when there was none). */
int32_t edgeplan_event_query(edgeplan_event *event);
void edgeplan_event_synchronize(edgeplan_event *event);
/* CLOCK_MONOTONIC ns of the last record that happened, 0 before the first. */
int64_t edgeplan_event_time_ns(edgeplan_event *event);

#endif
