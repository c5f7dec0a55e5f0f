// Shared by the tensor-core templates: fragments of a tile, and what becomes of their sums.
//
// Put in place of the include line. Partial sums of the warps that share the k range meet in the
// block's shared memory, those of a cluster's blocks through distributed shared memory, and those
// of other splits in a workspace that a second kernel adds up.

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

// Add up the tiles that the warps of a block (and the blocks of a cluster) have put into shared
// memory, one after another by warp_k, and finish or keep the sums.
// pixel_of_row(row, at) says which pixel a row is, false for none.
template <typename PixelOfRow>
EP_DEVICE void join_tiles(unsigned char *shared, const PixelOfRow pixel_of_row,
                          Y_TYPE *y OPERAND_PARAMETERS, float *sums, int split, int group,
                          int filter_tile) {
  float *own = reinterpret_cast<float *>(shared);
  constexpr int runs = TILE_PIXELS * TILE_FILTERS / 4;
  constexpr int columns = TILE_FILTERS / 4;
#if USES_CLUSTER
  constexpr int blocks = SPLITS;
  const int rank = split;
  if (WARPS_K > 1) {
    // Remote reads are slow: the block's own warps are added up first.
    __syncthreads();
    for (int run = threadIdx.x; run < runs; run += kThreads) {
      float *at = own + run / columns * kSumPitch + run % columns * 4;
      float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      EP_UNROLL
      for (int k = 0; k < WARPS_K; ++k) {
        add(v, *reinterpret_cast<const float4 *>(at + k * (TILE_PIXELS * kSumPitch)));
      }
      *reinterpret_cast<float4 *>(at) = make_float4(v[0], v[1], v[2], v[3]);
    }
  }
  ep_cluster_sync();
#else
  __syncthreads();
#endif
#if USES_CLUSTER
  // Every thread first reads all of its shares; then blocks may end, while results are finished.
  constexpr int shares = (runs + blocks * kThreads - 1) / (blocks * kThreads);
  float v[shares][4];
  EP_UNROLL
  for (int i = 0; i < shares; ++i) {
    const int run = (i * blocks + rank) * kThreads + threadIdx.x;
    const float *from = own + run / columns * kSumPitch + run % columns * 4;
    float4 parts[blocks];
    EP_UNROLL
    for (int b = 0; b < blocks; ++b) {
      parts[b] = run < runs ? ep_cluster_load4(from, b) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    EP_UNROLL
    for (int e = 0; e < 4; ++e) v[i][e] = 0.0f;
    EP_UNROLL
    for (int b = 0; b < blocks; ++b) add(v[i], parts[b]);
  }
  __syncwarp();
  ep_cluster_arrive();
  ep_grid_wait_to_store();
  EP_UNROLL
  for (int i = 0; i < shares; ++i) {
    const int run = (i * blocks + rank) * kThreads + threadIdx.x;
    const int row = run / columns, column = run % columns * 4;
    Pixel at;
    if (run < runs && pixel_of_row(row, at)) {
      emit<4>(v[i], y OPERAND_NAMES, sums, split, at, group, filter_tile * TILE_FILTERS + column);
    }
  }
  __syncwarp();
  ep_cluster_wait();
#else
  ep_grid_wait_to_store();
  for (int run = threadIdx.x; run < runs; run += kThreads) {
    const int row = run / columns, column = run % columns * 4;
    const float *from = own + row * kSumPitch + column;
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    EP_UNROLL
    for (int k = 0; k < WARPS_K; ++k) {
      add(v, *reinterpret_cast<const float4 *>(from + k * (TILE_PIXELS * kSumPitch)));
    }
    Pixel at;
    if (pixel_of_row(row, at)) {
      emit<4>(v, y OPERAND_NAMES, sums, split, at, group, filter_tile * TILE_FILTERS + column);
    }
  }
#endif
}

// Add up and store a tile of fragments.
template <typename PixelOfRow>
EP_DEVICE void store_sums(const Sums &acc, unsigned char *shared, const PixelOfRow pixel_of_row,
                          Y_TYPE *y OPERAND_PARAMETERS, float *sums, int split, int group,
                          int filter_tile) {
  constexpr bool is_direct = WARPS_K == 1 && !(SPLITS > 1 && USES_CLUSTER);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M % WARPS_N;
  const int warp_k = warp / (WARPS_M * WARPS_N);
  float *own = reinterpret_cast<float *>(shared);
  float *tile = own + warp_k * (TILE_PIXELS * kSumPitch);
  if (!is_direct) {
    ep_cp_async_wait<0>();
    __syncthreads();  // the tile takes the place of the stages
  } else {
    ep_grid_wait_to_store();
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
        if (!is_direct) {
          EP_UNROLL
          for (int e = 0; e < 2 * kRun; e += 4) {
            *reinterpret_cast<float4 *>(tile + row * kSumPitch + column + e) =
                make_float4(v[e], v[e + 1], v[e + 2], v[e + 3]);
          }
        } else if (is_inside) {
          emit<2 * kRun>(v, y OPERAND_NAMES, sums, split, at, group,
                         filter_tile * TILE_FILTERS + column);
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
