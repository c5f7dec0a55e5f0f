// Shared by the templates that pool: which pixels the rows of the product are, and the store.
//
// Put in place of the include line, behind kTilesM, kTilesN and kRun. Sixteen rows are two image
// rows of eight columns: four windows of 2x2. A lane holds both rows of a column, and the lane four
// further holds the next column, so that a window is complete after one exchange between the two.
// Each then finishes half of the window's channels.

// Row and column within the block's tile of the convolution's pixels.
EP_DEVICE void place_of_row(int m, int &row, int &column) {
  constexpr int across = TILE_W / 8;
  row = m / 16 / across * 2 + m % 16 / 8;
  column = m / 16 % across * 8 + m % 8;
}

// Pools and stores a warp's sums. first_row, first_column: of the block's first window in y.
// first_filter: of the warp's first channel in y, below FILTERS or past it.
EP_DEVICE void store_windows(const float (&acc)[kTilesM][kTilesN][4], int n, int first_row,
                             int first_column, int warp_m, int first_filter,
                             Y_TYPE *y OPERAND_PARAMETERS) {
  constexpr int across = TILE_W / 8;
  const int lane = threadIdx.x % 32;
  const bool is_odd = lane / 4 % 2 == 1;
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    const int chunk = warp_m * kTilesM + i;
    const Pixel at = {n, first_row + chunk / across, first_column + chunk % across * 4 + lane / 8};
    const bool is_inside = at.oh < POOLED_H && at.ow < POOLED_W;
    EP_UNROLL
    for (int j = 0; j < kTilesN; j += kRun) {
      float v[2 * kRun], own[kRun];
      EP_UNROLL
      for (int e = 0; e < 2 * kRun; ++e) {
        v[e] = ep_max(acc[i][j + e / 2][e % 2], acc[i][j + e / 2][2 + e % 2]);
      }
      EP_UNROLL
      for (int e = 0; e < kRun; ++e) {
        const float given = is_odd ? v[e] : v[kRun + e];
        own[e] = ep_max(is_odd ? v[kRun + e] : v[e], __shfl_xor_sync(EP_ALL_LANES, given, 4));
      }
      const int filter =
          first_filter + j * 8 + lane % 4 * (2 * kRun) + (is_odd ? kRun : 0);
      if (is_inside && filter < FILTERS) {
        finish<kRun>(own, y OPERAND_NAMES, at, filter, filter, FILTERS - filter);
      }
    }
  }
}
