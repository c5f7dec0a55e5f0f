// Shared by the 8-bit templates: where the terms of an output lie in the input.
//
// Put in place of the include line, behind convolution.cuh. Terms are taps times channels of a
// group, without gaps; TILE_K of them are one step.

constexpr int kTerms = KERNEL_H * KERNEL_W * GROUP_CHANNELS;

struct RowPlan {
  int n_offset, origin_h, origin_w;
};

EP_DEVICE RowPlan row_plan(int m) {
  const Pixel at = pixel_of(m);
  return RowPlan{at.n * X_N, m < BATCH * OUT_H * OUT_W ? RowRule::origin(at.oh) : -(1 << 24),
                 ColumnRule::origin(at.ow)};
}

// Address of one term of a pixel; nullptr for padding and for what lies behind the last term.
EP_DEVICE const X_TYPE *address_of(const X_TYPE *x, const RowPlan &row, int term) {
  const int tap = term / GROUP_CHANNELS, channel = term - tap * GROUP_CHANNELS;
  const int r = tap / KERNEL_W, s = tap - r * KERNEL_W;
  int ih, iw;
  const bool in_h = RowRule::find(row.origin_h, r, ih);
  const bool in_w = ColumnRule::find(row.origin_w, s, iw);
  const bool is_valid = in_h && in_w && (kTerms % TILE_K == 0 || term < kTerms);
  return is_valid ? x + row.n_offset + ih * X_H + iw * X_W + channel : nullptr;
}

// `count` terms, four to a word, from X_VECTOR neighbouring channels at a time.
template <int count, bool is_aligned>
EP_DEVICE void load_terms(unsigned (&words)[count / 4], const X_TYPE *x, const RowPlan &row,
                          int first) {
  constexpr int width = X_VECTOR < count ? X_VECTOR : count;
  EP_UNROLL
  for (int i = 0; i < count / 4; ++i) words[i] = 0u;
  EP_UNROLL
  for (int i = 0; i < count; i += width) {
    const X_TYPE *from = address_of(x, row, first + i);
    if (from != nullptr) {
      const EpPack<X_TYPE, width> piece = ep_load_pack_of_step<X_TYPE, width, is_aligned>(from);
      EP_UNROLL
      for (int j = 0; j < width; ++j) {
        words[(i + j) / 4] |= static_cast<unsigned>(static_cast<ep_u8>(piece.at[j]))
                              << ((i + j) % 4 * 8);
      }
    }
  }
}
