// YOLOv2 region: logistic on x, y and objectness, softmax over the classes. One thread per pixel
// of one anchor.
#include "ep_cuda_math.cuh"
#define PIXELS (X0_DIM_2 * X0_DIM_3)
#define MAPS (5 + ATTR_classes)

EP_KERNEL region(const X0_TYPE *EP_RESTRICT x, Y0_TYPE *EP_RESTRICT y) {
  ep_grid_wait();
  ep_grid_launch();
  const int item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= X0_ELEMS / MAPS) return;
  const int first = item / PIXELS * (MAPS * PIXELS) + item % PIXELS;
  x += first;
  y += first;
  for (int map = 0; map < 5; ++map) {
    const float value = static_cast<float>(x[map * PIXELS]);
    y[map * PIXELS] =
        static_cast<Y0_TYPE>(map == 2 || map == 3 ? value : 1.0f / (1.0f + expf(-value)));
  }
  x += 5 * PIXELS;
  y += 5 * PIXELS;
  float peak = static_cast<float>(x[0]);
  for (int c = 1; c < ATTR_classes; ++c) peak = fmaxf(peak, static_cast<float>(x[c * PIXELS]));
  float sum = 0.0f;
  for (int c = 0; c < ATTR_classes; ++c) sum += expf(static_cast<float>(x[c * PIXELS]) - peak);
  for (int c = 0; c < ATTR_classes; ++c)
    y[c * PIXELS] =
        static_cast<Y0_TYPE>(expf(static_cast<float>(x[c * PIXELS]) - peak) / sum);
}
