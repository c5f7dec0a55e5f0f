/* Kernels for the stand-in libcuda: host functions in a shared object, which stands for a cubin.

   EP_HOST_KERNEL(scale, 3) {
       const float *x = EP_POINTER(0), *w = EP_POINTER(1);
       float *y = EP_POINTER(2);
       ...for every block and thread of launch->grid and launch->block...
   }

   One call runs the whole grid. params[i] points to the 64-bit value of parameter i, as in
   cuLaunchKernel. The number of parameters is exported beside the function as NAME_num_params,
   because the driver must copy the values when a launch is captured. */
#ifndef EP_HOST_KERNEL_H
#define EP_HOST_KERNEL_H

#include <stdint.h>

#ifdef __cplusplus
#define EP_C extern "C"
#else
#define EP_C
#endif

typedef struct ep_host_launch {
    unsigned int grid[3], block[3], cluster[3];
    unsigned int shared_bytes; /* dynamic shared memory per block; the kernel allocates it */
    int is_dependent;          /* launched with programmatic stream serialization */
    void (*fault)(int code);   /* let the launch fail with this CUresult, as on a device */
} ep_host_launch;

typedef void (*ep_host_kernel)(void **params, const ep_host_launch *launch);

#define EP_VISIBLE __attribute__((visibility("default")))
#define EP_HOST_KERNEL(name, num_params)                                            \
    EP_C EP_VISIBLE extern const unsigned int name##_num_params;                    \
    EP_C EP_VISIBLE const unsigned int name##_num_params = (num_params);            \
    EP_C EP_VISIBLE void name(void **params, const ep_host_launch *launch);         \
    EP_C EP_VISIBLE void name(void **params, const ep_host_launch *launch)

#define EP_INT64(i) (*(const int64_t *)params[i])
#define EP_POINTER(i) ((void *)(uintptr_t)(*(const uint64_t *)params[i]))

#endif
