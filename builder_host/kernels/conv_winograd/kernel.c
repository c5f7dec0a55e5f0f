// Winograd convolution with stride 1 on blocked tensors: F(2x2, 3x3), F(4x4, 3x3), F(2x2, 5x5).
// Output tiles of OUT_TILE x OUT_TILE are taken TILES at a time. Their input patches are
// transformed for all channels (each lane is a channel, so both transforms are plain vector
// arithmetic); then, for one set of output blocks after the other, each frequency is a matrix
// product of a register tile kernel, and its sums are transformed back and stored.
//   V [frequency][input block][tile][lane], M [frequency][tile][block of set][lane]
//   U (weights) [set][frequency][input block][input lane][block of set][lane]
#include "ep_vector.h"

// parameters
#define SYMBOL conv_winograd_default
#define TRANSFORM_SYMBOL conv_winograd_default_input // only with SPLIT
#define KERNEL_SIZE 3         // 3 or 5
#define OUT_TILE 4            // 2 or 4, 2 for a kernel of 5
#define IN_H 56               // input rows and columns
#define IN_W 56
#define OUT_H 56
#define OUT_W 56
#define BATCH 1
#define X_N 200704            // strides in floats
#define X_C 50176
#define X_H 896
#define X_W 16
#define Y_N 200704
#define Y_C 50176
#define Y_H 896
#define Y_W 16
#define PAD_TOP 1
#define PAD_LEFT 1
#define IN_BLOCKS 4
#define IN_TAIL 16            // channels in the last input block
#define SET_BLOCKS 2          // output blocks of a wide set; a narrow one has one fewer
#define WIDE_SETS 2           // wide sets come first
#define NARROW_SETS 0
#define TILES 28              // output tiles of one unit
#define TILE_PIXELS 14        // tiles of the largest part
#define TILE_PARTS INNER(0, 14, 2)
#define LANES_UNROLLED 4      // divides EP_VL and IN_TAIL
#define VECTOR_LANES 0        // 1: a whole block of V is loaded and used lane by lane
#define PREFETCH_BYTES 2048   // how far ahead U is prefetched; 0: not at all
#define SPLIT 0               // 1: two launches, V of all tiles in the shared workspace
#define HAS_BIAS 1
#define POOL 1                // 2: y has the maximum of each 2x2 outputs
#define NUM_OPERANDS 0
#define OPERAND1_STRIDES 0, 0, 0, 0
#define OPERAND2_STRIDES 0, 0, 0, 0
#define OPERAND3_STRIDES 0, 0, 0, 0
#define OPERAND4_STRIDES 0, 0, 0, 0
#define EPILOGUE x0
// end of parameters

#include "epilogue.h"

#define IN_TILE (OUT_TILE + KERNEL_SIZE - 1)
#define FREQUENCIES (IN_TILE * IN_TILE)
#define TILE_ROWS ((OUT_H + OUT_TILE - 1) / OUT_TILE)
#define TILE_COLUMNS ((OUT_W + OUT_TILE - 1) / OUT_TILE)
#define ALL_TILES (BATCH * TILE_ROWS * TILE_COLUMNS)
#define CHUNKS ((ALL_TILES + TILES - 1) / TILES)
#define SETS (WIDE_SETS + NARROW_SETS)
// 16 floats more, so that the streams of all frequencies do not meet in the same cache sets.
#define V_FREQUENCY (IN_BLOCKS * TILES * EP_VL + 16)
#define V_FLOATS (FREQUENCIES * V_FREQUENCY)
#define M_FREQUENCY (TILES * SET_BLOCKS * EP_VL + 16)
#define U_BLOCK (FREQUENCIES * IN_BLOCKS * EP_VL * EP_VL) // weights of one output block
#define FIRST_OPERAND (2 + HAS_BIAS)
#define OUTPUT (FIRST_OPERAND + NUM_OPERANDS)
#define WORKSPACE (OUTPUT + 1)

typedef vf patch[IN_TILE][IN_TILE];

#if IN_TILE == 6
// Points 0, 1, -1, 2, -2, infinity.
EP_INLINE void transform_in(const vf *d, vf *t)
{
    const vf a = ep_fma(ep_splat(-4.0f), d[2], d[4]), b = ep_fma(ep_splat(-4.0f), d[1], d[3]);
    const vf c = d[4] - d[2], e = (d[3] - d[1]) * ep_splat(2.0f);
    t[0] = ep_fma(ep_splat(4.0f), d[0], ep_fma(ep_splat(-5.0f), d[2], d[4]));
    t[1] = a + b;
    t[2] = a - b;
    t[3] = c + e;
    t[4] = c - e;
    t[5] = ep_fma(ep_splat(4.0f), d[1], ep_fma(ep_splat(-5.0f), d[3], d[5]));
}

EP_INLINE void transform_out(const vf *m, vf *r)
{
    const vf s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    r[0] = m[0] + s + s2;
    r[1] = ep_fma(ep_splat(2.0f), d2, d);
#if OUT_TILE == 4
    r[2] = ep_fma(ep_splat(4.0f), s2, s);
    r[3] = ep_fma(ep_splat(8.0f), d2, d) + m[5];
#else
    r[1] = r[1] + m[5];
#endif
}
#else
// Points 0, 1, -1, infinity.
EP_INLINE void transform_in(const vf *d, vf *t)
{
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[1] - d[3];
}

EP_INLINE void transform_out(const vf *m, vf *r)
{
    r[0] = m[0] + m[1] + m[2];
    r[1] = m[1] - m[2] - m[3];
}
#endif

// Transforms one input patch; its rows and columns are stride_h and stride_w floats apart.
EP_INLINE void transform_patch(const float *x, const int64_t stride_h, const int64_t stride_w,
                               float *v)
{
    patch half;
    EP_UNROLL
    for (int j = 0; j < IN_TILE; ++j) {
        vf d[IN_TILE], t[IN_TILE];
        EP_UNROLL
        for (int i = 0; i < IN_TILE; ++i)
            d[i] = ep_load(x + i * stride_h + j * stride_w);
        transform_in(d, t);
        EP_UNROLL
        for (int i = 0; i < IN_TILE; ++i)
            half[i][j] = t[i];
    }
    EP_UNROLL
    for (int i = 0; i < IN_TILE; ++i) {
        vf t[IN_TILE];
        transform_in(half[i], t);
        EP_UNROLL
        for (int j = 0; j < IN_TILE; ++j)
            ep_store(v + (int64_t)(i * IN_TILE + j) * V_FREQUENCY, t[j]);
    }
}

// Fills V for tiles [first, end) and input blocks [block_begin, block_end).
EP_NOINLINE void transform_tiles(const float *x, float *v, int64_t first, int64_t end,
                                 int64_t block_begin, int64_t block_end)
{
    for (int64_t tile = first; tile < end; ++tile) {
        const int64_t n = tile / (TILE_ROWS * TILE_COLUMNS);
        const int64_t top = tile / TILE_COLUMNS % TILE_ROWS * OUT_TILE - PAD_TOP;
        const int64_t left = tile % TILE_COLUMNS * OUT_TILE - PAD_LEFT;
        const float *from = x + n * X_N + top * X_H + left * X_W;
        float *to = v + (tile - first) * EP_VL;
        if (top >= 0 && top + IN_TILE <= IN_H && left >= 0 && left + IN_TILE <= IN_W) {
            for (int64_t cb = block_begin; cb < block_end; ++cb)
                transform_patch(from + cb * X_C, X_H, X_W, to + cb * TILES * EP_VL);
            continue;
        }
        const int64_t row_begin = top < 0 ? -top : 0, column_begin = left < 0 ? -left : 0;
        const int64_t row_end = IN_H - top < IN_TILE ? IN_H - top : IN_TILE;
        const int64_t column_end = IN_W - left < IN_TILE ? IN_W - left : IN_TILE;
        float copy[FREQUENCIES * EP_VL];
        memset(copy, 0, sizeof copy);
        for (int64_t cb = block_begin; cb < block_end; ++cb) {
            for (int64_t i = row_begin; i < row_end; ++i) {
                for (int64_t j = column_begin; j < column_end; ++j)
                    ep_store(copy + (i * IN_TILE + j) * EP_VL,
                             ep_load(from + cb * X_C + i * X_H + j * X_W));
            }
            transform_patch(copy, IN_TILE * EP_VL, EP_VL, to + cb * TILES * EP_VL);
        }
    }
}

// The sums of one frequency for some tiles and the blocks of one set.
EP_INLINE void multiply_part(const float *v, const float *u, float *m, const int tiles,
                             const int blocks)
{
    vf sums[TILE_PIXELS][SET_BLOCKS];
    EP_UNROLL
    for (int t = 0; t < tiles; ++t) {
        EP_UNROLL
        for (int o = 0; o < blocks; ++o)
            sums[t][o] = ep_splat(0.0f);
    }
    for (int64_t cb = 0; cb < IN_BLOCKS; ++cb) {
#if VECTOR_LANES
        const float *rows = u + cb * EP_VL * blocks * EP_VL;
        vf w[EP_VL][SET_BLOCKS];
        EP_UNROLL
        for (int lane = 0; lane < EP_VL; ++lane) {
            EP_UNROLL
            for (int o = 0; o < blocks; ++o)
                w[lane][o] = ep_load(rows + (lane * blocks + o) * EP_VL);
        }
        if (PREFETCH_BYTES > 0)
            ep_prefetch((const char *)rows + PREFETCH_BYTES);
        EP_UNROLL
        for (int t = 0; t < tiles; ++t) {
            const vf values = ep_load(v + (cb * TILES + t) * EP_VL);
            EP_UNROLL
            for (int lane = 0; lane < EP_VL; ++lane) {
                EP_UNROLL
                for (int o = 0; o < blocks; ++o)
                    sums[t][o] = ep_fma(ep_splat(values[lane]), w[lane][o], sums[t][o]);
            }
        }
#else
        const int64_t lanes = cb == IN_BLOCKS - 1 ? IN_TAIL : EP_VL;
        for (int64_t lane = 0; lane < lanes; lane += LANES_UNROLLED) {
            EP_UNROLL
            for (int k = 0; k < LANES_UNROLLED; ++k) {
                const float *row = u + (cb * EP_VL + lane + k) * blocks * EP_VL;
                vf w[SET_BLOCKS];
                EP_UNROLL
                for (int o = 0; o < blocks; ++o) {
                    w[o] = ep_load(row + o * EP_VL);
                    if (PREFETCH_BYTES > 0)
                        ep_prefetch((const char *)(row + o * EP_VL) + PREFETCH_BYTES);
                }
                EP_UNROLL
                for (int t = 0; t < tiles; ++t) {
                    vf value = ep_splat(v[(cb * TILES + t) * EP_VL + lane + k]);
                    EP_UNROLL
                    for (int o = 0; o < blocks; ++o)
                        sums[t][o] = ep_fma(value, w[o], sums[t][o]);
                }
            }
        }
#endif
    }
    EP_UNROLL
    for (int t = 0; t < tiles; ++t) {
        EP_UNROLL
        for (int o = 0; o < blocks; ++o)
            ep_store(m + (t * blocks + o) * EP_VL, sums[t][o]);
    }
}

// M of all frequencies for the first `tiles` tiles of V and one set.
EP_INLINE void multiply(const float *v, const float *u, float *m, const int64_t tiles,
                        const int blocks)
{
    for (int64_t f = 0; f < FREQUENCIES; ++f) {
#define INNER(begin, width, count)                                                               \
    for (int64_t part = 0; part < (count); ++part) {                                             \
        const int64_t tile = (begin) + part * (width);                                           \
        if (tile < tiles)                                                                        \
            multiply_part(v + f * V_FREQUENCY + tile * EP_VL,                                    \
                          u + f * IN_BLOCKS * EP_VL * blocks * EP_VL,                            \
                          m + f * M_FREQUENCY + tile * blocks * EP_VL, width, blocks);           \
    }
        TILE_PARTS
#undef INNER
    }
}

// Transforms M back and stores tiles [first, end) of some output blocks.
EP_INLINE void store_tiles(const float *m, const float *bias, float *y, void *const *operands,
                           const int64_t first, const int64_t end, const int64_t block,
                           const int blocks)
{
    for (int64_t tile = first; tile < end; ++tile) {
        const int64_t n = tile / (TILE_ROWS * TILE_COLUMNS);
        const int64_t top = tile / TILE_COLUMNS % TILE_ROWS * OUT_TILE;
        const int64_t left = tile % TILE_COLUMNS * OUT_TILE;
        for (int64_t o = 0; o < blocks; ++o) {
            const float *from = m + ((tile - first) * blocks + o) * EP_VL;
            const vf start = HAS_BIAS ? ep_load(bias + o * EP_VL) : ep_splat(0.0f);
            float *to = y + n * Y_N + (block + o) * Y_C + top / POOL * Y_H + left / POOL * Y_W;
            vf half[OUT_TILE][IN_TILE];
            EP_UNROLL
            for (int j = 0; j < IN_TILE; ++j) {
                vf d[IN_TILE], r[OUT_TILE];
                EP_UNROLL
                for (int i = 0; i < IN_TILE; ++i)
                    d[i] = ep_load(from + (int64_t)(i * IN_TILE + j) * M_FREQUENCY);
                transform_out(d, r);
                EP_UNROLL
                for (int i = 0; i < OUT_TILE; ++i)
                    half[i][j] = r[i];
            }
            EP_UNROLL
            for (int i = 0; i < OUT_TILE; i += POOL) {
                vf r[OUT_TILE];
                transform_out(half[i], r);
#if POOL == 2
                vf below[OUT_TILE];
                transform_out(half[i + 1], below);
                EP_UNROLL
                for (int j = 0; j < OUT_TILE; j += 2)
                    r[j] = ep_max(ep_max(r[j], r[j + 1]), ep_max(below[j], below[j + 1]));
#endif
                EP_UNROLL
                for (int j = 0; j < OUT_TILE; j += POOL) {
                    if ((OUT_H % OUT_TILE == 0 || top + i < OUT_H) &&
                        (OUT_W % OUT_TILE == 0 || left + j < OUT_W))
                        ep_store(to + i / POOL * Y_H + j / POOL * Y_W,
                                 finished(r[j] + start, operands, n, block + o,
                                          (top + i) / POOL, (left + j) / POOL));
                }
            }
        }
    }
}

// One set of output blocks for tiles [first, end), from V to y.
EP_NOINLINE void compute_set(void *const *args, const float *v, float *m, int64_t set,
                             int64_t first, int64_t end)
{
    const int is_wide = set < WIDE_SETS;
    const int64_t block = set * SET_BLOCKS - (is_wide ? 0 : set - WIDE_SETS);
    const float *u = (const float *)args[1] + block * U_BLOCK;
    const float *bias = HAS_BIAS ? (const float *)args[2] + block * EP_VL : u;
    float *y = args[OUTPUT];
    if (is_wide) {
        multiply(v, u, m, end - first, SET_BLOCKS);
        store_tiles(m, bias, y, args + FIRST_OPERAND, first, end, block, SET_BLOCKS);
    } else {
#if NARROW_SETS > 0
        multiply(v, u, m, end - first, SET_BLOCKS - 1);
        store_tiles(m, bias, y, args + FIRST_OPERAND, first, end, block, SET_BLOCKS - 1);
#endif
    }
}

EP_INLINE int64_t last_tile(int64_t chunk)
{
    return (chunk + 1) * TILES < ALL_TILES ? (chunk + 1) * TILES : ALL_TILES;
}

// args: x, weights, [bias], operands, y, [workspace].
#if SPLIT
// A unit is a chunk of tiles and an input block.
EP_EXPORT void TRANSFORM_SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end,
                                void *scratch)
{
    (void)scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t chunk = unit / IN_BLOCKS, cb = unit % IN_BLOCKS;
        transform_tiles(args[0], (float *)args[WORKSPACE] + chunk * V_FLOATS, chunk * TILES,
                        last_tile(chunk), cb, cb + 1);
    }
}

// A unit is a set and a chunk of tiles.
EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch)
{
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t chunk = unit % CHUNKS;
        compute_set(args, (const float *)args[WORKSPACE] + chunk * V_FLOATS, scratch,
                    unit / CHUNKS, chunk * TILES, last_tile(chunk));
    }
}
#else
// A unit is a chunk of tiles.
EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch)
{
    float *v = scratch, *m = v + V_FLOATS;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        transform_tiles(args[0], v, unit * TILES, last_tile(unit), 0, IN_BLOCKS);
        for (int64_t set = 0; set < SETS; ++set)
            compute_set(args, v, m, set, unit * TILES, last_tile(unit));
    }
}
#endif
