// Shared by the tensor-core templates: fragments of a tile, and what becomes of their sums.
//
// Put in place of the include line. Partial sums of the warps that share the k range meet in the
// block's shared memory, the blocks of a cluster send them to each other's, and those of other splits
// meet in a workspace that a second kernel adds up.

constexpr int kPixels = BATCH * OUT_H * OUT_W;
constexpr int kThreads = 32 * WARPS_M * WARPS_N * WARPS_K;
constexpr int kTilesM = TILE_PIXELS / WARPS_M / 16;
constexpr int kTilesN = TILE_FILTERS / WARPS_N / 8;
constexpr int kRun = kTilesN < 4 ? kTilesN : 4;  // 8-column tiles whose columns are interleaved
constexpr int kFilterTiles = (GROUP_FILTERS + TILE_FILTERS - 1) / TILE_FILTERS;
constexpr int kPaddedFilters = kFilterTiles * TILE_FILTERS;
constexpr int kSumPitch = TILE_FILTERS + 4;

#if SPLITS > 1 && !USES_CLUSTER
#define SUMS_PARAMETER , float *sums
#define SUMS sums
#else
#define SUMS_PARAMETER
#define SUMS static_cast<float *>(nullptr)
#endif

typedef float Sums[kTilesM][kTilesN][4];

EP_DEVICE void clear(Sums &acc) {
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    EP_UNROLL
    for (int j = 0; j < kTilesN; ++j) {
      EP_UNROLL
      for (int e = 0; e < 4; ++e) acc[i][j][e] = 0.0f;
    }
  }
}

// What a warp needs of one k16 step.
struct Fragments {
  unsigned a[kTilesM][4];
  uint4 b[kTilesN / 2];
};

// rows[i]: this lane's addresses of its 16 x 16 pixel fragments.
EP_DEVICE void load_fragments(Fragments &to, const half *const (&rows)[kTilesM], int offset,
                              const uint4 *b_chunks) {
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
      ep_mma_f16(acc[i][2 * j], from.a[i], even);
      ep_mma_f16(acc[i][2 * j + 1], from.a[i], odd);
    }
  }
}

// A run of neighbouring outputs of one pixel: finished, or kept as a partial sum.
template <int count>
EP_DEVICE void emit(float (&v)[count], Y_TYPE *y OPERAND_PARAMETERS, float *sums, int split,
                    const Pixel at, int group, int filter) {
  if (filter >= GROUP_FILTERS) return;
  const int slot = group * kPaddedFilters + filter;
  if (SPLITS > 1 && !USES_CLUSTER) {
    const int m = (at.n * OUT_H + at.oh) * OUT_W + at.ow;
    float *to =
        sums + (static_cast<ep_i64>(split) * kPixels + m) * (GROUPS * kPaddedFilters) + slot;
    EP_UNROLL
    for (int i = 0; i < count; ++i) to[i] = v[i];
  } else {
    finish<count>(v, y OPERAND_NAMES, at, group * GROUP_FILTERS + filter, slot,
                  GROUP_FILTERS - filter);
  }
}

EP_DEVICE void add(float (&v)[4], const float4 part) {
  v[0] += part.x;
  v[1] += part.y;
  v[2] += part.z;
  v[3] += part.w;
}

constexpr int kColumnRuns = TILE_FILTERS / 4;              // of four neighbouring filters
constexpr int kRuns = TILE_PIXELS * kColumnRuns;

#if USES_CLUSTER
// Each block of the cluster finishes a share of the tile: it has an inbox, behind all else in shared
// memory, into which every block writes its part of that share.
constexpr int kShares = (kRuns + SPLITS * kThreads - 1) / (SPLITS * kThreads);  // of a thread

// Place of a value in the inbox of block `rank`; values of a run stay together.
EP_DEVICE float *place_of(unsigned char *shared, int split, int row, int column, int &rank) {
  const int run = row * kColumnRuns + column / 4;
  rank = run / kThreads % SPLITS;
  const int own = run / (kThreads * SPLITS) * kThreads + run % kThreads;
  return reinterpret_cast<float *>(shared + INBOX_AT) +
         (split * (kShares * kThreads) + own) * 4 + column % 4;
}

// Behind the last write to an inbox: add up and finish the block's share.
template <typename PixelOfRow>
EP_DEVICE void finish_share(unsigned char *shared, const PixelOfRow pixel_of_row,
                            Y_TYPE *y OPERAND_PARAMETERS, int split, int group, int filter_tile) {
  ep_cp_async_wait<0>();  // channel vectors, where a split had nothing to multiply
  __syncwarp();
  ep_cluster_arrive();
  ep_cluster_wait();
  const float4 *inbox = reinterpret_cast<const float4 *>(shared + INBOX_AT) + threadIdx.x;
  ep_grid_wait_to_store();
  EP_UNROLL
  for (int i = 0; i < kShares; ++i) {
    const int run = (i * SPLITS + split) * kThreads + threadIdx.x;
    const int row = run / kColumnRuns, column = run % kColumnRuns * 4;
    Pixel at;
    if (run < kRuns && pixel_of_row(row, at)) {
      float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      EP_UNROLL
      for (int b = 0; b < SPLITS; ++b) add(v, inbox[(b * kShares + i) * kThreads]);
      emit<4>(v, y OPERAND_NAMES, nullptr, split, at, group, filter_tile * TILE_FILTERS + column);
    }
  }
}
#endif

// Add up the tiles that the warps of a block have put into shared memory, one after another by
// warp_k, and finish, keep or send the sums. pixel_of_row(row, at) says which pixel a row is, false
// for none.
template <typename PixelOfRow>
EP_DEVICE void join_tiles(unsigned char *shared, const PixelOfRow pixel_of_row,
                          Y_TYPE *y OPERAND_PARAMETERS, float *sums, int split, int group,
                          int filter_tile) {
  const float *own = reinterpret_cast<const float *>(shared);
  __syncthreads();
#if USES_CLUSTER
  ep_cluster_wait();
#else
  ep_grid_wait_to_store();
#endif
  for (int run = threadIdx.x; run < kRuns; run += kThreads) {
    const int row = run / kColumnRuns, column = run % kColumnRuns * 4;
    const float *from = own + row * kSumPitch + column;
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    EP_UNROLL
    for (int k = 0; k < WARPS_K; ++k) {
      add(v, *reinterpret_cast<const float4 *>(from + k * (TILE_PIXELS * kSumPitch)));
    }
#if USES_CLUSTER
    int rank;
    float *to = place_of(shared, split, row, column, rank);
    ep_cluster_store4(to, rank, make_float4(v[0], v[1], v[2], v[3]));
#else
    Pixel at;
    if (pixel_of_row(row, at)) {
      emit<4>(v, y OPERAND_NAMES, sums, split, at, group, filter_tile * TILE_FILTERS + column);
    }
#endif
  }
#if USES_CLUSTER
  finish_share(shared, pixel_of_row, y OPERAND_NAMES, split, group, filter_tile);
#endif
}

// Add up and store a tile of fragments.
template <typename PixelOfRow>
EP_DEVICE void store_sums(const Sums &acc, unsigned char *shared, const PixelOfRow pixel_of_row,
                          Y_TYPE *y OPERAND_PARAMETERS, float *sums, int split, int group,
                          int filter_tile) {
  constexpr bool is_sent = WARPS_K == 1 && USES_CLUSTER, is_direct = WARPS_K == 1 && !is_sent;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M % WARPS_N;
  const int warp_k = warp / (WARPS_M * WARPS_N);
  float *tile = reinterpret_cast<float *>(shared) + warp_k * (TILE_PIXELS * kSumPitch);
  if (is_direct) {
    ep_grid_wait_to_store();
#if USES_CLUSTER
  } else if (is_sent) {
    ep_cluster_wait();
#endif
  } else {
    ep_cp_async_wait<0>();
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
        float v[2 * kRun];
        EP_UNROLL
        for (int e = 0; e < 2 * kRun; ++e) v[e] = acc[i][j + e / 2][2 * h + e % 2];
        const int column = warp_n * (kTilesN * 8) + j * 8 + lane % 4 * (2 * kRun);
        if (is_direct) {
          if (is_inside) {
            emit<2 * kRun>(v, y OPERAND_NAMES, sums, split, at, group,
                           filter_tile * TILE_FILTERS + column);
          }
          continue;
        }
        EP_UNROLL
        for (int e = 0; e < 2 * kRun; e += 4) {
          const float4 part = make_float4(v[e], v[e + 1], v[e + 2], v[e + 3]);
#if USES_CLUSTER
          if (is_sent) {
            int rank;
            float *to = place_of(shared, split, row, column + e, rank);
            ep_cluster_store4(to, rank, part);
            continue;
          }
#endif
          *reinterpret_cast<float4 *>(tile + row * kSumPitch + column + e) = part;
        }
      }
    }
  }
#if USES_CLUSTER
  if (is_sent) {
    finish_share(shared, pixel_of_row, y OPERAND_NAMES, split, group, filter_tile);
    return;
  }
#endif
  if (!is_direct) {
    join_tiles(shared, pixel_of_row, y OPERAND_NAMES, sums, split, group, filter_tile);
  }
}

#if SPLITS > 1 && !USES_CLUSTER
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
// The second kernel: partial sums of all splits, four channels per thread.
EP_KERNEL __launch_bounds__(128) JOIN(SYMBOL, _sum)(const X_TYPE *, const half *OPERAND_PARAMETERS,
                                                    Y_TYPE *y, const float *sums) {
  ep_grid_wait();
  ep_grid_launch();
  constexpr int width = GROUPS * kPaddedFilters;
  const ep_i64 run = static_cast<ep_i64>(blockIdx.x) * 128 + threadIdx.x;
  const int m = static_cast<int>(run / (width / 4)), slot = static_cast<int>(run % (width / 4)) * 4;
  const int group = slot / kPaddedFilters, filter = slot - group * kPaddedFilters;
  if (m >= kPixels || filter >= GROUP_FILTERS) return;
  float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  EP_UNROLL
  for (int split = 0; split < SPLITS; ++split) {
    const float4 part = *reinterpret_cast<const float4 *>(
        sums + (static_cast<ep_i64>(split) * kPixels + m) * width + slot);
    v[0] += part.x;
    v[1] += part.y;
    v[2] += part.z;
    v[3] += part.w;
  }
  finish<4>(v, y OPERAND_NAMES, pixel_of(m), group * GROUP_FILTERS + filter, slot,
            GROUP_FILTERS - filter);
}
#endif
