// YOLOv2 region: logistic on x, y and objectness, softmax over the classes. One unit per row of
// one anchor's maps.
#define H X0_DIM_2
#define W X0_DIM_3
#define MAPS (5 + ATTR_classes)

EP_INLINE void one_map(const float *x, float *y, int is_logistic) {
  int64_t i = 0;
  for (; i + EP_VL <= W; i += EP_VL) {
    const vf value = ep_load(x + i);
    ep_store(y + i, is_logistic ? ep_sigmoid_v(value) : value);
  }
  for (; i < W; ++i) y[i] = is_logistic ? ep_sigmoid_s(x[i]) : x[i];
}

EP_EXPORT void region(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
  (void)scratch;
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t at = unit / H * (MAPS * H * W) + unit % H * W;
    const float *x = (const float *)args[0] + at;
    float *y = (float *)args[1] + at;
    for (int map = 0; map < 5; ++map)
      one_map(x + map * H * W, y + map * H * W, map != 2 && map != 3);
    const float *scores = x + 5 * H * W;
    float *shares = y + 5 * H * W;
    for (int64_t i = 0; i < W; ++i) {
      float peak = scores[i];
      for (int64_t c = 1; c < ATTR_classes; ++c) peak = ep_max_s(peak, scores[c * H * W + i]);
      float sum = 0.0f;
      for (int64_t c = 0; c < ATTR_classes; ++c) {
        const float share = ep_exp_s(scores[c * H * W + i] - peak);
        shares[c * H * W + i] = share;
        sum += share;
      }
      for (int64_t c = 0; c < ATTR_classes; ++c) shares[c * H * W + i] /= sum;
    }
  }
}
