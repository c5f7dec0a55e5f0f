/* Devices, contexts, memory, modules, error texts, and the controls that tests use. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake.h"

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t fake_changed = PTHREAD_COND_INITIALIZER;
int fake_device_attributes[MAX_DEVICES][MAX_ATTRIBUTES];

typedef struct block {
    char *address;
    size_t size;
    int is_host;
    struct block *next;
} block;

typedef struct entry {
    char name[48];
    long value;
    int fail_code;
    long fail_after;
    struct entry *next;
} entry;

static entry *calls, *live;
static block *blocks;
static function *functions;
static context primary[MAX_DEVICES];
static char names[MAX_DEVICES][64];
static size_t memory_bytes[MAX_DEVICES], used_bytes;
static int num_devices = 1, version = 12060, is_initialised;
static __thread context *stack[32];
static __thread int depth;

static entry *find(entry **list, const char *name) {
    for (entry *e = *list; e; e = e->next)
        if (!strcmp(e->name, name)) return e;
    entry *e = calloc(1, sizeof *e);
    snprintf(e->name, sizeof e->name, "%s", name);
    e->fail_after = -1;
    e->next = *list;
    return *list = e;
}

int fake_enter(const char *name) {
    pthread_mutex_lock(&fake_lock);
    entry *e = find(&calls, name);
    e->value++;
    int code = e->fail_after == 0 ? e->fail_code : OK;
    if (e->fail_after >= 0) e->fail_after--;
    if (!code && !is_initialised && strcmp(name, "cuInit")) code = NOT_INITIALIZED;
    pthread_mutex_unlock(&fake_lock);
    return code;
}

int fake_enter_context(const char *name, context **ctx) {
    int code = fake_enter(name);
    *ctx = depth ? stack[depth - 1] : NULL;
    if (code) return code;
    return *ctx ? (*ctx)->fault : INVALID_CONTEXT;
}

void fake_count_live(const char *kind, int change) { find(&live, kind)->value += change; }

/* --- controls ------------------------------------------------------------------------------ */

API long fake_calls(const char *name) {
    pthread_mutex_lock(&fake_lock);
    long value = find(&calls, name)->value;
    pthread_mutex_unlock(&fake_lock);
    return value;
}

API long fake_live(const char *kind) {
    pthread_mutex_lock(&fake_lock);
    long value = find(&live, kind)->value;
    pthread_mutex_unlock(&fake_lock);
    return value;
}

API void fake_fail(const char *name, int code, long after) {
    pthread_mutex_lock(&fake_lock);
    entry *e = find(&calls, name);
    e->fail_code = code;
    e->fail_after = after;
    pthread_mutex_unlock(&fake_lock);
}

API void fake_set_attribute(int device, int attribute, int value) {
    fake_device_attributes[device][attribute] = value;
}

API void fake_set_memory(int device, size_t bytes) { memory_bytes[device] = bytes; }
API void fake_set_name(int device, const char *name) {
    snprintf(names[device], sizeof names[device], "%s", name);
}
API void fake_set_version(int number) { version = number; }
API void fake_set_num_devices(int number) { num_devices = number; }
API size_t fake_used_bytes(void) { return used_bytes; }

/* --- driver, devices, contexts --------------------------------------------------------------- */

API int cuInit(unsigned int flags) {
    (void)flags;
    ENTER("cuInit");
    if (num_devices == 0) return NO_DEVICE;
    is_initialised = 1;
    return OK;
}

API int cuDriverGetVersion(int *out) {
    *out = version;
    return OK;
}

API int cuDeviceGetCount(int *out) {
    ENTER("cuDeviceGetCount");
    *out = num_devices;
    return OK;
}

API int cuDeviceGet(int *out, int ordinal) {
    ENTER("cuDeviceGet");
    if (ordinal < 0 || ordinal >= num_devices) return INVALID_DEVICE;
    *out = ordinal;
    return OK;
}

API int cuDeviceGetName(char *out, int size, int device) {
    ENTER("cuDeviceGetName");
    snprintf(out, (size_t)size, "%s", names[device]);
    return OK;
}

API int cuDeviceGetAttribute(int *out, int attribute, int device) {
    ENTER("cuDeviceGetAttribute");
    if (attribute <= 0 || attribute >= MAX_ATTRIBUTES) return INVALID_VALUE;
    *out = fake_device_attributes[device][attribute];
    return OK;
}

API int cuDeviceTotalMem_v2(size_t *out, int device) {
    ENTER("cuDeviceTotalMem");
    *out = memory_bytes[device];
    return OK;
}

API int cuDeviceComputeCapability(int *major, int *minor, int device) {
    *major = fake_device_attributes[device][75];
    *minor = fake_device_attributes[device][76];
    return OK;
}

API int cuDevicePrimaryCtxRetain(context **out, int device) {
    ENTER("cuDevicePrimaryCtxRetain");
    primary[device].device = device;
    primary[device].is_primary = 1;
    primary[device].retained++;
    *out = &primary[device];
    return OK;
}

API int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER("cuDevicePrimaryCtxRelease");
    if (primary[device].retained == 0) return INVALID_CONTEXT;
    primary[device].retained--;
    return OK;
}

API int cuCtxCreate_v4(context **out, void *params, unsigned int flags, int device) {
    (void)params, (void)flags;
    ENTER("cuCtxCreate");
    *out = calloc(1, sizeof **out);
    (*out)->device = device;
    stack[depth++] = *out;
    return OK;
}

API int cuCtxPushCurrent_v2(context *ctx) {
    ENTER("cuCtxPushCurrent");
    if (!ctx || depth == 32) return INVALID_VALUE;
    stack[depth++] = ctx;
    return OK;
}

API int cuCtxPopCurrent_v2(context **out) {
    ENTER("cuCtxPopCurrent");
    if (!depth) return INVALID_CONTEXT;
    context *popped = stack[--depth];
    if (out) *out = popped;
    return OK;
}

API int cuCtxGetCurrent(context **out) {
    *out = depth ? stack[depth - 1] : NULL;
    return OK;
}

API int cuCtxGetDevice(int *out) {
    ENTER_CONTEXT("cuCtxGetDevice");
    *out = ctx->device;
    return OK;
}

API int cuCtxSynchronize(void) {
    ENTER_CONTEXT("cuCtxSynchronize");
    return ctx->fault;
}

/* --- memory ---------------------------------------------------------------------------------- */

static int allocate(void **out, size_t size, int is_host, context *ctx) {
    if (!size) return INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    if (!is_host && used_bytes + size > memory_bytes[ctx->device]) {
        pthread_mutex_unlock(&fake_lock);
        return OUT_OF_MEMORY;
    }
    block *b = calloc(1, sizeof *b);
    if (posix_memalign((void **)&b->address, 512, size)) return OUT_OF_MEMORY;
    memset(b->address, 0xCD, size); /* as on a device: nothing useful is in there */
    b->size = size;
    b->is_host = is_host;
    b->next = blocks;
    blocks = b;
    if (!is_host) used_bytes += size;
    fake_count_live(is_host ? "host memory" : "memory", 1);
    pthread_mutex_unlock(&fake_lock);
    *out = b->address;
    return OK;
}

static int release(void *address, int is_host) {
    pthread_mutex_lock(&fake_lock);
    for (block **p = &blocks; *p; p = &(*p)->next) {
        block *b = *p;
        if (b->address != address || b->is_host != is_host) continue;
        *p = b->next;
        if (!is_host) used_bytes -= b->size;
        fake_count_live(is_host ? "host memory" : "memory", -1);
        pthread_mutex_unlock(&fake_lock);
        memset(b->address, 0xDD, b->size);
        free(b->address);
        free(b);
        return OK;
    }
    pthread_mutex_unlock(&fake_lock);
    return INVALID_VALUE;
}

/* The block that holds [address, address + size). */
static const block *block_of(const void *address, size_t size) {
    const char *begin = address;
    const block *found = NULL;
    pthread_mutex_lock(&fake_lock);
    for (block *b = blocks; b && !found; b = b->next)
        if (begin >= b->address && begin + size <= b->address + b->size) found = b;
    pthread_mutex_unlock(&fake_lock);
    return found;
}

API int cuMemAlloc_v2(void **out, size_t size) {
    ENTER_CONTEXT("cuMemAlloc");
    return allocate(out, size, 0, ctx);
}

API int cuMemFree_v2(void *address) {
    ENTER_CONTEXT("cuMemFree");
    return release(address, 0);
}

API int cuMemHostAlloc(void **out, size_t size, unsigned int flags) {
    (void)flags;
    ENTER_CONTEXT("cuMemHostAlloc");
    return allocate(out, size, 1, ctx);
}

API int cuMemFreeHost(void *address) {
    ENTER_CONTEXT("cuMemFreeHost");
    return release(address, 1);
}

API int cuMemHostGetDevicePointer_v2(void **out, void *address, unsigned int flags) {
    (void)flags;
    ENTER_CONTEXT("cuMemHostGetDevicePointer");
    const block *b = block_of(address, 1);
    if (!b || !b->is_host) return INVALID_VALUE;
    *out = address;
    return OK;
}

API int cuPointerGetAttribute(void *out, int attribute, void *address) {
    ENTER_CONTEXT("cuPointerGetAttribute");
    if (attribute != 3 || !block_of(address, 1)) return INVALID_VALUE;
    *(void **)out = address;
    return OK;
}

API int cuMemGetAddressRange_v2(void **base, size_t *size, void *address) {
    ENTER_CONTEXT("cuMemGetAddressRange");
    const block *b = block_of(address, 1);
    if (!b) return NOT_FOUND;
    *base = b->address;
    *size = b->size;
    return OK;
}

API int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    ENTER_CONTEXT("cuMemGetInfo");
    *total = memory_bytes[ctx->device];
    *free_bytes = *total - used_bytes;
    return OK;
}

static void run_copy(context *ctx, command *c) {
    (void)ctx;
    memcpy(c->a, c->b, c->size);
}

static int copy(context *ctx, stream *s, void *to, const void *from, size_t size, int to_device) {
    if (size && !block_of(to_device ? to : from, size)) return INVALID_VALUE;
    command c = {.run = run_copy, .a = to, .b = (void *)(uintptr_t)from, .size = size};
    s = fake_stream(ctx, s);
    int code = fake_submit(s, c);
    /* Pageable memory: the call returns when the host side has been read or written. */
    if (!code && !block_of(to_device ? from : to, size)) fake_drain(s);
    return code;
}

API int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, stream *s) {
    ENTER_CONTEXT("cuMemcpyHtoDAsync");
    return copy(ctx, s, to, from, size, 1);
}

API int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, stream *s) {
    ENTER_CONTEXT("cuMemcpyDtoHAsync");
    return copy(ctx, s, to, from, size, 0);
}

API int cuMemcpyHtoD_v2(void *to, const void *from, size_t size) {
    ENTER_CONTEXT("cuMemcpyHtoD");
    int code = copy(ctx, NULL, to, from, size, 1);
    fake_drain(fake_stream(ctx, NULL));
    return code;
}

API int cuMemcpyDtoH_v2(void *to, const void *from, size_t size) {
    ENTER_CONTEXT("cuMemcpyDtoH");
    int code = copy(ctx, NULL, to, from, size, 0);
    fake_drain(fake_stream(ctx, NULL));
    return code;
}

static void run_fill(context *ctx, command *c) {
    (void)ctx;
    memset(c->a, (int)c->number, c->size);
}

API int cuMemsetD8Async(void *to, unsigned char value, size_t size, stream *s) {
    ENTER_CONTEXT("cuMemsetD8Async");
    if (size && !block_of(to, size)) return INVALID_VALUE;
    if ((uintptr_t)s > 2 && s->capture) { /* a fill node: what it writes does not matter here */
        node *n = calloc(1, sizeof *n);
        return fake_add_node(s->capture, n);
    }
    command c = {.run = run_fill, .a = to, .number = value, .size = size};
    return fake_submit(fake_stream(ctx, s), c);
}

/* --- modules --------------------------------------------------------------------------------- */

API int cuModuleLoadDataEx(module **out, const void *image, unsigned int num, const int *options,
                           void **values) {
    ENTER_CONTEXT("cuModuleLoadData");
    const Elf64_Ehdr *head = image;
    if (memcmp(image, ELFMAG, SELFMAG)) {
        if (memcmp(image, ".version", 8)) return INVALID_IMAGE;
        for (unsigned int i = 0; i < num; ++i)
            if (options[i] == 5) strcpy(values[i], "ptxas fatal: there is no compiler here");
        return INVALID_PTX;
    }
    if (head->e_machine == 190) return NO_BINARY; /* a real cubin */
    size_t size = head->e_shoff + (size_t)head->e_shnum * head->e_shentsize;
    module *m = calloc(1, sizeof *m);
    m->fd = memfd_create("fake-module", MFD_CLOEXEC);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", m->fd);
    if (m->fd < 0 || write(m->fd, image, size) != (ssize_t)size ||
        !(m->library = dlopen(path, RTLD_NOW | RTLD_LOCAL))) {
        if (m->fd >= 0) close(m->fd);
        free(m);
        return INVALID_IMAGE;
    }
    pthread_mutex_lock(&fake_lock);
    fake_count_live("module", 1);
    pthread_mutex_unlock(&fake_lock);
    *out = m;
    return OK;
}

API int cuModuleLoadData(module **out, const void *image) {
    return cuModuleLoadDataEx(out, image, 0, NULL, NULL);
}

API int cuModuleUnload(module *m) {
    ENTER_CONTEXT("cuModuleUnload");
    pthread_mutex_lock(&fake_lock);
    for (function **p = &functions; *p;) {
        function *f = *p;
        if (f->owner == m) {
            *p = f->next;
            free(f);
        } else {
            p = &f->next;
        }
    }
    fake_count_live("module", -1);
    pthread_mutex_unlock(&fake_lock);
    dlclose(m->library);
    close(m->fd);
    free(m);
    return OK;
}

API int cuModuleGetFunction(function **out, module *m, const char *name) {
    ENTER_CONTEXT("cuModuleGetFunction");
    char symbol[512];
    snprintf(symbol, sizeof symbol, "%s_num_params", name);
    void *entry_point = dlsym(m->library, name);
    /* The emulation does not say how many parameters a kernel has; it takes 24, which the runtime's
       launches always have pointers for. */
    static const unsigned int most = 24;
    emulation emulate = (emulation)dlsym(m->library, "emu_launch");
    const unsigned int *num = emulate ? &most : dlsym(m->library, symbol);
    if (!entry_point || !num) return NOT_FOUND;
    pthread_mutex_lock(&fake_lock);
    function *f = functions;
    while (f && (f->owner != m || (void *)f->entry != entry_point)) f = f->next;
    if (!f) {
        f = calloc(1, sizeof *f);
        f->entry = (ep_host_kernel)entry_point;
        f->emulate = emulate;
        f->num_params = *num;
        f->owner = m;
        f->next = functions;
        functions = f;
    }
    pthread_mutex_unlock(&fake_lock);
    *out = f;
    return OK;
}

API int cuFuncGetAttribute(int *out, int attribute, function *f) {
    ENTER_CONTEXT("cuFuncGetAttribute");
    *out = attribute == 8 ? f->max_dynamic_shared : attribute == 4 ? 32 : 0; /* 4: registers */
    return OK;
}

API int cuFuncSetAttribute(function *f, int attribute, int value) {
    ENTER_CONTEXT("cuFuncSetAttribute");
    if (attribute == 8) {
        if (value > fake_device_attributes[ctx->device][97]) return INVALID_VALUE;
        f->max_dynamic_shared = value;
    } else if (attribute == 14) {
        f->allows_large_cluster = value;
    }
    return OK;
}

API int cuFuncGetParamInfo(function *f, size_t index, size_t *offset, size_t *size) {
    ENTER_CONTEXT("cuFuncGetParamInfo");
    if (index >= f->num_params) return INVALID_VALUE;
    *offset = 8 * index;
    *size = 8;
    return OK;
}

/* --- texts ----------------------------------------------------------------------------------- */

static const struct {
    int code;
    const char *name, *text;
} texts[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {907, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a "
                                       "capturing stream"},
    {912, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "cluster misconfiguration"},
    {915, "CUDA_ERROR_MADE_UP", "a code that no table has"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

API int cuGetErrorName(int code, const char **out) {
    for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i)
        if (texts[i].code == code) return *out = texts[i].name, OK;
    *out = NULL;
    return INVALID_VALUE;
}

API int cuGetErrorString(int code, const char **out) {
    for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i)
        if (texts[i].code == code) return *out = texts[i].text, OK;
    *out = NULL;
    return INVALID_VALUE;
}

API int cuGetProcAddress(const char *name, void **out, int wanted, uint64_t flags) {
    static const char *suffixes[] = {"_v4", "_v3", "_v2", ""};
    Dl_info info;
    (void)wanted, (void)flags;
    *out = NULL;
    if (!dladdr((void *)cuInit, &info)) return NOT_FOUND;
    void *self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    for (int i = 0; self && i < 4 && !*out; ++i) {
        char symbol[128];
        snprintf(symbol, sizeof symbol, "%s%s", name, suffixes[i]);
        *out = dlsym(self, symbol);
    }
    return *out ? OK : NOT_FOUND;
}

API int cuGetProcAddress_v2(const char *name, void **out, int wanted, uint64_t flags, int *status) {
    int code = cuGetProcAddress(name, out, wanted, flags);
    if (status) *status = code ? 1 : 0;
    return code;
}
