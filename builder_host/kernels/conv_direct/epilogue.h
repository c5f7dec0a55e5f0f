// Epilogue shared by the convolution kernels; the generator puts this text into each source.
// Needs NUM_OPERANDS, OPERAND1_STRIDES .. OPERAND4_STRIDES (n, channel block, h, w in floats) and
// EPILOGUE, an expression over the vectors x0 (the result) and x1 .. x4 (the operands).

EP_INLINE vf operand_at(const float *operand, int64_t n, int64_t block, int64_t h,
                        int64_t w, const int64_t stride_n, const int64_t stride_block,
                        const int64_t stride_h, const int64_t stride_w)
{
    return ep_load(operand + n * stride_n + block * stride_block + h * stride_h + w * stride_w);
}

EP_INLINE vf finished(vf x0, void *const *operands, int64_t n, int64_t block, int64_t h,
                      int64_t w)
{
    (void)operands, (void)n, (void)block, (void)h, (void)w;
#if NUM_OPERANDS >= 1
    vf x1 = operand_at(operands[0], n, block, h, w, OPERAND1_STRIDES);
    (void)x1;
#endif
#if NUM_OPERANDS >= 2
    vf x2 = operand_at(operands[1], n, block, h, w, OPERAND2_STRIDES);
    (void)x2;
#endif
#if NUM_OPERANDS >= 3
    vf x3 = operand_at(operands[2], n, block, h, w, OPERAND3_STRIDES);
    (void)x3;
#endif
#if NUM_OPERANDS >= 4
    vf x4 = operand_at(operands[3], n, block, h, w, OPERAND4_STRIDES);
    (void)x4;
#endif
    return EPILOGUE;
}
