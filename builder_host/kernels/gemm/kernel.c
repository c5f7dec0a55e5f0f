// Matrix product: fully connected layers and batched matrix multiplication.
//
// C[row][column] = sum over depth of A[row][depth] * B[depth][column], row-major C. A unit is one
// batch item, ROWS_PER_UNIT rows and one group of VECTORS column vectors. A's elements are
// broadcast; B is read in vectors: packed in order of use at build time ([group][depth][vectors]),
// packed into scratch block by block, or read in place. Each output sums in a fixed order: over
// CHAINS interleaved partial sums within a depth block, blocks one after another.
#include "ep_vector.h"

#define PACKED_AT_BUILD 0
#define PACKED_IN_SCRATCH 1
#define READ_IN_PLACE 2

// parameters
#define KERNEL gemm_default
#define ROWS 1
#define COLUMNS 1000
#define DEPTH 1024
#define VECTORS 4
#define VECTORS_LAST (((COLUMNS + EP_VL - 1) / EP_VL - 1) % 4 + 1)
#define ROW_TILE 1
#define ROWS_PER_UNIT 1
#define CHAINS 2
#define DEPTH_BLOCK 1024
#define PREFETCH_ELEMS 1024
#define B_MODE PACKED_AT_BUILD
#define A_IS_BLOCKED 0
#define A_CHANNELS 1024
#define A_HEIGHT 1
#define A_WIDTH 1
#define A_STRIDE_C EP_VL
#define A_STRIDE_H EP_VL
#define A_STRIDE_W EP_VL
#define A_STRIDE_ROW 1024
#define A_STRIDE_DEPTH 1
#define B_STRIDE_DEPTH 1000
#define B_STRIDE_COLUMN 1
#define C_STRIDE_ROW 1000
#define A_OFFSET 0
#define B_OFFSET 0
#define C_OFFSET 0
#define OUTPUT_ARG 2
#define EPILOGUE_LOADS (void)0
#define EPILOGUE_EXPR x0
// end of parameters

#define COLUMN_GROUPS ((COLUMNS + VECTORS * EP_VL - 1) / (VECTORS * EP_VL))
#define ROW_GROUPS ((ROWS + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT)
#define ROW_REST (ROWS % ROW_TILE)
#define LANES_LAST ((COLUMNS - 1) % EP_VL + 1)
#define LAST_BLOCK ((DEPTH - 1) / DEPTH_BLOCK * DEPTH_BLOCK)
#define NUM_BLOCKS ((DEPTH + DEPTH_BLOCK - 1) / DEPTH_BLOCK)
// Scratch, in floats: gathered rows of A, then one packed block of B, then partial sums.
#define SCRATCH_A (A_IS_BLOCKED ? (ROWS_PER_UNIT * DEPTH + 15) / 16 * 16 : 0)
#define SCRATCH_B (B_MODE == PACKED_IN_SCRATCH ? DEPTH_BLOCK * VECTORS * EP_VL : 0)
#define USED_STRIDE_ROW (A_IS_BLOCKED ? DEPTH : A_STRIDE_ROW)
#define USED_STRIDE_DEPTH (A_IS_BLOCKED ? 1 : A_STRIDE_DEPTH)

typedef struct {
    void *const *args;
    int64_t batch;
    int64_t row;     // first row of the unit
    int64_t column;  // first column of the unit
    float *partial;  // [ROWS_PER_UNIT][vectors][EP_VL]
} place;

EP_INLINE vf load_b(const float *b, const int v, const int vectors, const int is_last) {
    if (B_MODE == READ_IN_PLACE && is_last && v == vectors - 1 && LANES_LAST != EP_VL)
        return ep_load_n(b + v * EP_VL, LANES_LAST);
    return ep_load(b + v * EP_VL);
}

EP_INLINE void store(const place *at, int64_t row, const int v, const int vectors,
                     const int is_last, vf x0) {
    void *const *args = at->args;
    const int64_t batch = at->batch, column = at->column + v * EP_VL;
    const int lanes = is_last && v == vectors - 1 ? LANES_LAST : EP_VL;
    EPILOGUE_LOADS;
    x0 = EPILOGUE_EXPR;
    float *c = (float *)args[OUTPUT_ARG] + (C_OFFSET) + row * C_STRIDE_ROW + column;
    if (lanes == EP_VL)
        ep_store(c, x0);
    else
        ep_store_n(c, x0, lanes);
    (void)batch;
}

// rows x vectors outputs over one depth block.
EP_INLINE void micro(const place *at, int64_t row, const float *EP_RESTRICT a,
                     const float *EP_RESTRICT b, const int64_t depth, const int is_first_block,
                     const int is_last_block, const int rows, const int vectors,
                     const int is_last) {
    const int64_t stride_b = B_MODE == READ_IN_PLACE ? B_STRIDE_DEPTH : vectors * EP_VL;
    float *partial = at->partial + (row - at->row) * (vectors * EP_VL);
    vf sum[CHAINS][ROW_TILE][VECTORS];
    EP_UNROLL
    for (int i = 0; i < CHAINS; ++i) {
        EP_UNROLL
        for (int m = 0; m < rows; ++m) {
            EP_UNROLL
            for (int v = 0; v < vectors; ++v)
                sum[i][m][v] = i || is_first_block
                                   ? ep_splat(0.0f)
                                   : ep_load(partial + (m * vectors + v) * EP_VL);
        }
    }
    int64_t d = 0;
    EP_NO_UNROLL
    for (; d + CHAINS <= depth; d += CHAINS) {
        EP_UNROLL
        for (int i = 0; i < CHAINS; ++i) {
            if (PREFETCH_ELEMS) {
                EP_UNROLL
                for (int v = 0; v < (vectors * EP_VL + 15) / 16; ++v)
                    ep_prefetch(b + PREFETCH_ELEMS + v * 16);
            }
            vf w[VECTORS];
            EP_UNROLL
            for (int v = 0; v < vectors; ++v) w[v] = load_b(b, v, vectors, is_last);
            EP_UNROLL
            for (int m = 0; m < rows; ++m) {
                const vf x = ep_splat(a[m * (int64_t)USED_STRIDE_ROW]);
                EP_UNROLL
                for (int v = 0; v < vectors; ++v) sum[i][m][v] = ep_fma(x, w[v], sum[i][m][v]);
            }
            a += USED_STRIDE_DEPTH;
            b += stride_b;
        }
    }
    EP_NO_UNROLL
    for (; d < depth; ++d) {
        EP_UNROLL
        for (int m = 0; m < rows; ++m) {
            const vf x = ep_splat(a[m * (int64_t)USED_STRIDE_ROW]);
            EP_UNROLL
            for (int v = 0; v < vectors; ++v)
                sum[0][m][v] = ep_fma(x, load_b(b, v, vectors, is_last), sum[0][m][v]);
        }
        a += USED_STRIDE_DEPTH;
        b += stride_b;
    }
    EP_UNROLL
    for (int m = 0; m < rows; ++m) {
        EP_UNROLL
        for (int v = 0; v < vectors; ++v) {
            vf total = sum[0][m][v];
            EP_UNROLL
            for (int i = 1; i < CHAINS; ++i) total = total + sum[i][m][v];
            if (is_last_block)
                store(at, row + m, v, vectors, is_last, total);
            else
                ep_store(partial + (m * vectors + v) * EP_VL, total);
        }
    }
}

#if B_MODE == PACKED_IN_SCRATCH
EP_INLINE void pack_b(float *EP_RESTRICT to, const float *EP_RESTRICT b, int64_t depth,
                      const int vectors, const int is_last) {
    const int columns = is_last ? (vectors - 1) * EP_VL + LANES_LAST : vectors * EP_VL;
    if (B_STRIDE_COLUMN == 1) {
        for (int64_t d = 0; d < depth; ++d) {
            EP_UNROLL
            for (int v = 0; v < vectors; ++v) {
                const float *from = b + d * B_STRIDE_DEPTH + v * EP_VL;
                const int lanes = is_last && v == vectors - 1 ? LANES_LAST : EP_VL;
                ep_store(to + (d * vectors + v) * EP_VL,
                         lanes == EP_VL ? ep_load(from) : ep_load_n(from, lanes));
            }
        }
    } else {
        for (int64_t j = 0; j < vectors * EP_VL; ++j)
            for (int64_t d = 0; d < depth; ++d)
                to[d * (vectors * EP_VL) + j] =
                    j < columns ? b[d * B_STRIDE_DEPTH + j * B_STRIDE_COLUMN] : 0.0f;
    }
}
#endif

#if A_IS_BLOCKED
// Copies the channels that exist, in the order [channel block][h][w][channel of the block].
EP_INLINE void gather_a(float *EP_RESTRICT to, const float *EP_RESTRICT a, int64_t rows) {
    for (int64_t m = 0; m < rows; ++m)
        for (int64_t c = 0; c < A_CHANNELS; c += EP_VL) {
            const int64_t lanes = A_CHANNELS - c < EP_VL ? A_CHANNELS - c : EP_VL;
            for (int64_t h = 0; h < A_HEIGHT; ++h)
                for (int64_t w = 0; w < A_WIDTH; ++w, to += lanes)
                    ep_store_n(to,
                               ep_load_n(a + m * (int64_t)A_STRIDE_ROW + c / EP_VL * A_STRIDE_C +
                                             h * A_STRIDE_H + w * A_STRIDE_W,
                                         lanes),
                               lanes);
        }
}
#endif

EP_INLINE void unit(const place *at, float *scratch, int64_t num_rows, const int vectors,
                    const int is_last) {
    const int64_t batch = at->batch;
    const float *a = (const float *)at->args[0] + (A_OFFSET) + at->row * (int64_t)A_STRIDE_ROW;
    const float *b = (const float *)at->args[1] + (B_OFFSET);
#if B_MODE == PACKED_AT_BUILD
    b += at->column * (int64_t)DEPTH;
#else
    b += at->column * (int64_t)B_STRIDE_COLUMN;
#endif
#if A_IS_BLOCKED
    gather_a(scratch, a, num_rows);
    a = scratch;
#endif
    for (int64_t d = 0; d < DEPTH; d += DEPTH_BLOCK) {
        const int64_t depth = d == LAST_BLOCK ? DEPTH - LAST_BLOCK : DEPTH_BLOCK;
        const int is_first_block = NUM_BLOCKS == 1 || d == 0;
        const int is_last_block = NUM_BLOCKS == 1 || d == LAST_BLOCK;
#if B_MODE == PACKED_IN_SCRATCH
        float *panel = scratch + SCRATCH_A;
        pack_b(panel, b + d * B_STRIDE_DEPTH, depth, vectors, is_last);
#elif B_MODE == PACKED_AT_BUILD
        const float *panel = b + d * (vectors * EP_VL);
#else
        const float *panel = b + d * B_STRIDE_DEPTH;
#endif
        int64_t m = 0;
        for (; m + ROW_TILE <= num_rows; m += ROW_TILE)
            micro(at, at->row + m, a + m * USED_STRIDE_ROW + d * USED_STRIDE_DEPTH, panel, depth,
                  is_first_block, is_last_block, ROW_TILE, vectors, is_last);
#if ROW_REST > 0
        if (m < num_rows)
            micro(at, at->row + m, a + m * USED_STRIDE_ROW + d * USED_STRIDE_DEPTH, panel, depth,
                  is_first_block, is_last_block, ROW_REST, vectors, is_last);
#endif
    }
    (void)batch, (void)scratch;
}

EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    for (int64_t number = unit_begin; number < unit_end; ++number) {
        const int64_t group = number % COLUMN_GROUPS;
        const place at = {
            args,
            number / (COLUMN_GROUPS * ROW_GROUPS),
            number / COLUMN_GROUPS % ROW_GROUPS * ROWS_PER_UNIT,
            group * (VECTORS * EP_VL),
            (float *)scratch + SCRATCH_A + SCRATCH_B,
        };
        const int64_t left = ROWS - at.row;
        const int64_t num_rows = left < ROWS_PER_UNIT ? left : ROWS_PER_UNIT;
        if (group < COLUMN_GROUPS - 1)
            unit(&at, (float *)scratch, num_rows, VECTORS, 0);
        else
            unit(&at, (float *)scratch, num_rows, VECTORS_LAST, 1);
    }
}
