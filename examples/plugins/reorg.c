// Darknet's reorg, one unit per channel of the buffer [BATCH, C, H, W] that the result fills.
#define S ATTR_stride
#define GROUPS (X0_DIM_1 / (S * S))

EP_EXPORT void reorg(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
  (void)scratch;
  const X0_TYPE *x = args[0];
  Y0_TYPE *y = args[1];
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t image = unit / X0_DIM_1, channel = unit % X0_DIM_1;
    const int64_t shift = channel / GROUPS;
    const X0_TYPE *from = x + image * X0_DIM_1 * X0_DIM_2 * X0_DIM_3 +
                          channel % GROUPS * (X0_DIM_2 * S * X0_DIM_3 * S) +
                          shift / S * (X0_DIM_3 * S) + shift % S;
    Y0_TYPE *to = y + unit * X0_DIM_2 * X0_DIM_3;
    for (int64_t row = 0; row < X0_DIM_2; ++row)
      for (int64_t column = 0; column < X0_DIM_3; ++column)
        to[row * X0_DIM_3 + column] = from[(row * X0_DIM_3 * S + column) * S];
  }
}
