// Geometry that the direct convolutions share; needs their template parameters.

#define SETS (WIDE_SETS + NARROW_SETS)
#define SET_CHUNKS ((GROUPS * SETS + SETS_PER_UNIT - 1) / SETS_PER_UNIT)
#define ROW_CHUNKS ((OUT_H + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT)

enum { INNER_TILE, EDGE_TILE, CLIPPED_TILE };

#if MIXED_GROUPS
// Output block -> range of the input that its groups read, packed input blocks before its weights.
static const int32_t mixed_table[][3] = {MIXED_TABLE};
#endif

// Column of the input that tap kw reads for output column ow.
EP_INLINE int64_t input_column(int64_t ow, int64_t kw)
{
    return ow * STRIDE_W + kw * DILATION_W - PAD_LEFT;
}
