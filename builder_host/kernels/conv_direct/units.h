// Rows, sets and units of work of the direct convolutions, around their compute_tile().
// Before this file a kernel includes tiles.h and defines
//   TILE_PARAMETERS  declarations of what a tile reads and writes, its operands apart
//   TILE_VALUES      the names that they declare
//   SET_VALUES       their values for image `n`, `group` and output block `block`, whose weights lie
//                    behind those of `blocks_before` input blocks

// All rows [row_begin, row_end) of one set of output blocks.
EP_INLINE void compute_rows(TILE_PARAMETERS, void *const *operands, const int64_t n,
                            const int64_t block, const int64_t row_begin, const int64_t row_end,
                            const int blocks)
{
    int64_t oh = row_begin;
#define EDGE(column, pixels)                                                                     \
    compute_tile(TILE_VALUES, operands, n, block, oh, column, ROWS, pixels, blocks, EDGE_TILE);
#define INNER(column, pixels, count)                                                             \
    for (int64_t tile = 0; tile < (count); ++tile)                                               \
        compute_tile(TILE_VALUES, operands, n, block, oh, (column) + tile * (pixels), ROWS,      \
                     pixels, blocks, INNER_TILE);
#define CLIPPED(column, count)                                                                   \
    for (int64_t tile = 0; tile < (count); ++tile)                                               \
        compute_tile(TILE_VALUES, operands, n, block, oh, (column) + tile, ROWS, 1, blocks,      \
                     CLIPPED_TILE);
#define ROWS TILE_ROWS
    for (; oh + ROWS <= row_end; oh += ROWS) {
        ROW_TILES
    }
#undef ROWS
#define ROWS 1
    if (TILE_ROWS > 1) {
        for (; oh < row_end; ++oh) {
            ROW_TILES
        }
    }
#undef ROWS
#undef CLIPPED
#undef INNER
#undef EDGE
}

EP_NOINLINE void compute_wide(TILE_PARAMETERS, void *const *operands, int64_t n, int64_t block,
                              int64_t row_begin, int64_t row_end)
{
    compute_rows(TILE_VALUES, operands, n, block, row_begin, row_end, SET_BLOCKS);
}

#if NARROW_SETS > 0
EP_NOINLINE void compute_narrow(TILE_PARAMETERS, void *const *operands, int64_t n, int64_t block,
                                int64_t row_begin, int64_t row_end)
{
    compute_rows(TILE_VALUES, operands, n, block, row_begin, row_end, SET_BLOCKS - 1);
}
#endif

// A unit is a chunk of sets, an image, a chunk of rows.
EP_INLINE void compute_units(TILE_PARAMETERS, void *const *operands, int64_t unit_begin,
                             int64_t unit_end)
{
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        int64_t row_begin = unit % ROW_CHUNKS * ROWS_PER_UNIT;
        int64_t row_end = row_begin + ROWS_PER_UNIT < OUT_H ? row_begin + ROWS_PER_UNIT : OUT_H;
        int64_t n = unit / ROW_CHUNKS % BATCH;
        int64_t set = unit / ROW_CHUNKS / BATCH * SETS_PER_UNIT;
        int64_t set_end = set + SETS_PER_UNIT < GROUPS * SETS ? set + SETS_PER_UNIT : GROUPS * SETS;
        for (; set < set_end; ++set) {
            int64_t group = set / SETS, within = set % SETS;
            int is_wide = within < WIDE_SETS;
            int64_t block = group * OUT_BLOCKS + within * SET_BLOCKS -
                            (is_wide ? 0 : within - WIDE_SETS);
#if MIXED_GROUPS
            int64_t blocks_before = mixed_table[block][2];
#else
            int64_t blocks_before = block * IN_BLOCKS;
#endif
            if (is_wide)
                compute_wide(SET_VALUES, operands, n, block, row_begin, row_end);
#if NARROW_SETS > 0
            else
                compute_narrow(SET_VALUES, operands, n, block, row_begin, row_end);
#endif
        }
    }
}
