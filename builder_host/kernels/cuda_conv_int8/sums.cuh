// Shared by the 8-bit tensor-core templates: fragments of a tile, and what becomes of their sums.
//
// Put in place of the include line. Fragments are those of 16-bit elements with two channels in the
// place of one. Partial sums of the warps that share the k range meet in shared memory; the blocks of
// a cluster read each other's, those of other splits meet in a workspace that a second kernel adds
// up. Sums are exact, so that every order gives the same bits.

constexpr int kPixels = BATCH * OUT_H * OUT_W;
constexpr int kThreads = 32 * WARPS_M * WARPS_N * WARPS_K;
constexpr int kTilesM = TILE_PIXELS / WARPS_M / 16;
constexpr int kTilesN = TILE_FILTERS / WARPS_N / 8;
constexpr int kRun = kTilesN < 4 ? kTilesN : 4;  // 8-column tiles whose columns are interleaved
constexpr int kFilterTiles = (GROUP_FILTERS + TILE_FILTERS - 1) / TILE_FILTERS;
constexpr int kPaddedFilters = kFilterTiles * TILE_FILTERS;
constexpr int kSumPitch = TILE_FILTERS + 4;
constexpr int kColumnRuns = TILE_FILTERS / 4;  // of four neighbouring filters
constexpr int kRuns = TILE_PIXELS * kColumnRuns;

#if SPLITS > 1 && !USES_CLUSTER
#define SUMS_PARAMETER , int *sums
#define SUMS sums
#else
#define SUMS_PARAMETER
#define SUMS static_cast<int *>(nullptr)
#endif

typedef int Sums[kTilesM][kTilesN][4];

EP_DEVICE void clear(Sums &acc) {
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    EP_UNROLL
    for (int j = 0; j < kTilesN; ++j) {
      EP_UNROLL
      for (int e = 0; e < 4; ++e) acc[i][j][e] = 0;
    }
  }
}

// What a warp needs of one step of 32 channels.
struct Fragments {
  unsigned a[kTilesM][4];
  uint4 b[kTilesN / 2];
};

// rows[i]: this lane's addresses of its 16 pixels x 32 channels.
EP_DEVICE void load_fragments(Fragments &to, const unsigned char *const (&rows)[kTilesM],
                              int offset, const uint4 *b_chunks) {
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) ep_ldmatrix_x4(to.a[i], rows[i] + offset);
  EP_UNROLL
  for (int j = 0; j < kTilesN / 2; ++j) to.b[j] = b_chunks[j * 32];
}

EP_DEVICE void multiply(Sums &acc, const Fragments &from) {
  EP_UNROLL
  for (int j = 0; j < kTilesN / 2; ++j) {
    const unsigned even[2] = {from.b[j].x, from.b[j].y}, odd[2] = {from.b[j].z, from.b[j].w};
    EP_UNROLL
    for (int i = 0; i < kTilesM; ++i) {
      ep_mma_s8<X_IS_SIGNED != 0>(acc[i][2 * j], from.a[i], even);
      ep_mma_s8<X_IS_SIGNED != 0>(acc[i][2 * j + 1], from.a[i], odd);
    }
  }
}

// A run of neighbouring outputs of one pixel: finished, or kept as a partial sum.
template <int count>
EP_DEVICE void emit(const int (&v)[count], Y_TYPE *y OPERAND_PARAMETERS, int *sums, int split,
                    const Pixel at, int group, int filter) {
  if (filter >= GROUP_FILTERS) return;
  const int slot = group * kPaddedFilters + filter;
  if (SPLITS > 1 && !USES_CLUSTER) {
    const int m = (at.n * OUT_H + at.oh) * OUT_W + at.ow;
    int *to = sums + (static_cast<ep_i64>(split) * kPixels + m) * (GROUPS * kPaddedFilters) + slot;
    EP_UNROLL
    for (int i = 0; i < count; ++i) to[i] = v[i];
  } else {
    float whole[count];
    EP_UNROLL
    for (int i = 0; i < count; ++i) whole[i] = static_cast<float>(v[i]);
    finish<count>(whole, y OPERAND_NAMES, at, group * GROUP_FILTERS + filter, slot,
                  GROUP_FILTERS - filter);
  }
}

EP_DEVICE void add(int (&v)[4], const int4 part) {
  v[0] += part.x;
  v[1] += part.y;
  v[2] += part.z;
  v[3] += part.w;
}

// Four sums in the shared memory of block `rank` of the cluster; bits travel as floats.
EP_DEVICE int4 load_part(const int *tile, int rank) {
#if USES_CLUSTER
  const float4 bits = ep_cluster_load4(reinterpret_cast<const float *>(tile), rank);
  return make_int4(__float_as_int(bits.x), __float_as_int(bits.y), __float_as_int(bits.z),
                   __float_as_int(bits.w));
#else
  (void)rank;
  return *reinterpret_cast<const int4 *>(tile);
#endif
}

// Add up the tiles of a block's warps and of a cluster's blocks, each of which finishes a share.
template <typename PixelOfRow>
EP_DEVICE void join_tiles(unsigned char *shared, const PixelOfRow pixel_of_row,
                          Y_TYPE *y OPERAND_PARAMETERS, int *sums, int split, int group,
                          int filter_tile) {
  constexpr int blocks = USES_CLUSTER ? SPLITS : 1;
  const int *tiles = reinterpret_cast<const int *>(shared);
  const int rank = USES_CLUSTER ? split : 0;
#if USES_CLUSTER
  ep_cluster_sync();
#else
  __syncthreads();
#endif
  ep_grid_wait_to_store();
  for (int run = rank * kThreads + threadIdx.x; run < kRuns; run += blocks * kThreads) {
    const int row = run / kColumnRuns, column = run % kColumnRuns * 4;
    Pixel at;
    if (pixel_of_row(row, at)) {
      const int *from = tiles + row * kSumPitch + column;
      int v[4] = {0, 0, 0, 0};
      EP_UNROLL
      for (int b = 0; b < blocks; ++b) {
        EP_UNROLL
        for (int k = 0; k < WARPS_K; ++k) {
          add(v, load_part(from + k * (TILE_PIXELS * kSumPitch), b));
        }
      }
      emit<4>(v, y OPERAND_NAMES, sums, split, at, group, filter_tile * TILE_FILTERS + column);
    }
  }
#if USES_CLUSTER
  __syncwarp();       // lanes without a pixel may be ahead
  ep_cluster_sync();  // a block's memory stays until the others have read it
#endif
}

// Add up and store a tile of fragments. pixel_of_row(row, at) says which pixel a row is, false for
// none.
template <typename PixelOfRow>
EP_DEVICE void store_sums(const Sums &acc, unsigned char *shared, const PixelOfRow pixel_of_row,
                          Y_TYPE *y OPERAND_PARAMETERS, int *sums, int split, int group,
                          int filter_tile) {
  constexpr bool is_direct = WARPS_K == 1 && !USES_CLUSTER;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M % WARPS_N;
  const int warp_k = warp / (WARPS_M * WARPS_N);
  int *tile = reinterpret_cast<int *>(shared) + warp_k * (TILE_PIXELS * kSumPitch);
  ep_cp_async_wait<0>();  // channel vectors, where a split had nothing to multiply
  if (is_direct) {
    ep_grid_wait_to_store();
  } else {
    __syncthreads();  // the tile takes the place of the stages
  }
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    EP_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int row = warp_m * (kTilesM * 16) + i * 16 + h * 8 + lane / 4;
      Pixel at;
      const bool is_inside = pixel_of_row(row, at);
      EP_UNROLL
      for (int j = 0; j < kTilesN; j += kRun) {
        int v[2 * kRun];
        EP_UNROLL
        for (int e = 0; e < 2 * kRun; ++e) v[e] = acc[i][j + e / 2][2 * h + e % 2];
        const int column = warp_n * (kTilesN * 8) + j * 8 + lane % 4 * (2 * kRun);
        if (is_direct) {
          if (is_inside) {
            emit<2 * kRun>(v, y OPERAND_NAMES, sums, split, at, group,
                           filter_tile * TILE_FILTERS + column);
          }
        } else {
          EP_UNROLL
          for (int e = 0; e < 2 * kRun; e += 4) {
            *reinterpret_cast<int4 *>(tile + row * kSumPitch + column + e) =
                make_int4(v[e], v[e + 1], v[e + 2], v[e + 3]);
          }
        }
      }
    }
  }
  if (!is_direct) {
    join_tiles(shared, pixel_of_row, y OPERAND_NAMES, sums, split, group, filter_tile);
  }
}

#if SPLITS > 1 && !USES_CLUSTER
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
// The second kernel: partial sums of all splits, four channels per thread.
EP_KERNEL __launch_bounds__(128)
    JOIN(SYMBOL, _sum)(const X_TYPE *, const unsigned char *OPERAND_PARAMETERS, Y_TYPE *y,
                       const int *sums) {
  ep_grid_wait();
  ep_grid_launch();
  constexpr int width = GROUPS * kPaddedFilters;
  const ep_i64 run = static_cast<ep_i64>(blockIdx.x) * 128 + threadIdx.x;
  const int m = static_cast<int>(run / (width / 4)), slot = static_cast<int>(run % (width / 4)) * 4;
  const int group = slot / kPaddedFilters, filter = slot - group * kPaddedFilters;
  if (m >= kPixels || filter >= GROUP_FILTERS) return;
  int v[4] = {0, 0, 0, 0};
  EP_UNROLL
  for (int split = 0; split < SPLITS; ++split) {
    add(v, *reinterpret_cast<const int4 *>(
               sums + (static_cast<ep_i64>(split) * kPixels + m) * width + slot));
  }
  float whole[4];
  EP_UNROLL
  for (int i = 0; i < 4; ++i) whole[i] = static_cast<float>(v[i]);
  finish<4>(whole, y OPERAND_NAMES, pixel_of(m), group * GROUP_FILTERS + filter, slot,
            GROUP_FILTERS - filter);
}
#endif
