// Shared by the warp-group templates: what becomes of the sums of a block.
//
// Put in place of the include line, behind sums.cuh. A thread holds two neighbouring filters of
// TILE_PIXELS / 4 pixels: it stores them, or puts them where those of other warp groups and of the
// cluster's other blocks are added up.

// pixel_of_row(row, at) says which pixel a column of the product is, false for none.
template <typename PixelOfRow>
EP_DEVICE void store_columns(const float (&acc)[TILE_PIXELS / 2], unsigned char *shared,
                             const PixelOfRow pixel_of_row, Y_TYPE *y OPERAND_PARAMETERS,
                             float *sums, int split, int filter_tile, int warp, int lane) {
  const int own_filter = warp % WARPS_N / 4 * 64 + warp % 4 * 16 + lane / 4 * 2;
  constexpr bool is_sent = WARPS_K == 1 && USES_CLUSTER, is_direct = WARPS_K == 1 && !is_sent;
  float *tile = reinterpret_cast<float *>(shared) + warp / WARPS_N * (TILE_PIXELS * kSumPitch);
  if (is_direct) {
    ep_grid_wait_to_store();
#if USES_CLUSTER
  } else if (is_sent) {
    ep_cluster_wait();
#endif
  } else {
    ep_cp_async_wait<0>();
    __syncthreads();  // the tiles of sums take the place of the stages
  }
  EP_UNROLL
  for (int j = 0; j < TILE_PIXELS / 8; ++j) {
    EP_UNROLL
    for (int e = 0; e < 2; ++e) {
      const int row = j * 8 + lane % 4 * 2 + e;
      float v[2] = {acc[4 * j + e], acc[4 * j + 2 + e]};
      Pixel at;
      if (is_direct) {
        if (pixel_of_row(row, at)) {
          emit<2>(v, y OPERAND_NAMES, sums, split, at, 0, filter_tile * TILE_FILTERS + own_filter);
        }
        continue;
      }
#if USES_CLUSTER
      if (is_sent) {
        int rank;
        float *to = place_of(shared, split, row, own_filter, rank);
        ep_cluster_store2(to, rank, make_float2(v[0], v[1]));
        continue;
      }
#endif
      *reinterpret_cast<float2 *>(tile + row * kSumPitch + own_filter) = make_float2(v[0], v[1]);
    }
  }
#if USES_CLUSTER
  if (is_sent) {
    finish_share(shared, pixel_of_row, y OPERAND_NAMES, split, 0, filter_tile);
    return;
  }
#endif
  if (!is_direct) {
    join_tiles(shared, pixel_of_row, y OPERAND_NAMES, sums, split, 0, filter_tile);
  }
}
