// Darknet's reorg, one thread per element of the result.
#define S ATTR_stride
#define GROUPS (X0_DIM_1 / (S * S))

EP_KERNEL reorg(const X0_TYPE *EP_RESTRICT x, Y0_TYPE *EP_RESTRICT y) {
  ep_grid_wait();
  ep_grid_launch();
  const int element = blockIdx.x * blockDim.x + threadIdx.x;
  if (element >= Y0_ELEMS) return;
  const int column = element % X0_DIM_3, row = element / X0_DIM_3 % X0_DIM_2;
  const int channel = element / (X0_DIM_3 * X0_DIM_2) % X0_DIM_1;
  const int image = element / (X0_DIM_3 * X0_DIM_2 * X0_DIM_1);
  const int shift = channel / GROUPS;
  const int from = ((image * GROUPS + channel % GROUPS) * X0_DIM_2 * S + row * S + shift / S) *
                       (X0_DIM_3 * S) +
                   column * S + shift % S;
  y[element] = x[from];
}
