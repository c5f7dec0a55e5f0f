/* What the worker pool and the streams are made of: waiting for counters, threads, memory.
 *
 * Sleeping and waking costs 5 to 50 us, a spin burns a core that others may need.
 */
#ifndef EDGEPLAN_THREADS_H
#define EDGEPLAN_THREADS_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before the first header: thread names and affinities need it"
#endif

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "futex words are low halves of counters");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics");

#define SPIN_POLITE_NS 10000 /* from here on the core is offered to other threads */
#define PAUSES_PER_CLOCK 32

#define THREAD_STACK_BYTES (2 << 20)

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static inline int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static inline void futex_wait(const void *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static inline void futex_wake(const void *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* A counter that only grows, with the number of threads that sleep on its low half.
 * Sleeping and waking meet through sequential consistency: the sleeper announces itself and then
 * reads the counter, the other side moves the counter and then reads the number of sleepers. */
typedef struct {
    _Atomic uint64_t value;
    _Atomic uint32_t sleepers;
} counter;

static inline void counter_wait(counter *c, uint64_t target, int64_t spin_ns) {
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
static inline void counter_nap(counter *c, uint64_t seen, int64_t wait_ns) {
    struct timespec limit = {wait_ns / 1000000000, wait_ns % 1000000000};
    atomic_fetch_add(&c->sleepers, 1);
    syscall(SYS_futex, &c->value, FUTEX_WAIT_PRIVATE, (uint32_t)seen, &limit, NULL, 0);
    atomic_fetch_sub(&c->sleepers, 1);
}

static inline void counter_notify(counter *c) {
    if (atomic_load(&c->sleepers)) futex_wake(&c->value, INT_MAX);
}

static inline void *allocate_zeroed(size_t size) {
    void *memory = NULL;
    int code = posix_memalign(&memory, 64, size ? size : 1);
    if (code) {
        errno = code;
        return NULL;
    }
    return memset(memory, 0, size);
}

static inline int start_thread(pthread_t *thread, void *(*function)(void *), void *argument,
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

#endif
