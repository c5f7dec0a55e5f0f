// Shared by the convolution templates: where outputs lie, which inputs they need, the epilogue.
//
// Put in place of the include line behind a template's parameters, which name the extents
// (IN_H ...), strides in elements (X_N ...), X_TYPE, Y_TYPE and the macros of the epilogue.

struct Pixel {
  int n, oh, ow;
};
EP_DEVICE Pixel pixel_of(int m) {
  const int rest = m / OUT_W;
  return Pixel{rest / OUT_H, rest % OUT_H, m - rest * OUT_W};
}

// Input row (column) that tap r of an output row needs; false: padding, or no input maps there.
struct RowRule {
  EP_DEVICE int origin(int out) { return IS_TRANSPOSED ? out + PAD_TOP : out * STRIDE_H - PAD_TOP; }
  EP_DEVICE bool find(int origin, int tap, int &in) {
    if (IS_TRANSPOSED) {
      const int at = origin - tap * DILATION_H;
      in = at / STRIDE_H;
      return at >= 0 && at % STRIDE_H == 0 && in < IN_H;
    }
    in = origin + tap * DILATION_H;
    return static_cast<unsigned>(in) < static_cast<unsigned>(IN_H);
  }
};
struct ColumnRule {
  EP_DEVICE int origin(int out) {
    return IS_TRANSPOSED ? out + PAD_LEFT : out * STRIDE_W - PAD_LEFT;
  }
  EP_DEVICE bool find(int origin, int tap, int &in) {
    if (IS_TRANSPOSED) {
      const int at = origin - tap * DILATION_W;
      in = at / STRIDE_W;
      return at >= 0 && at % STRIDE_W == 0 && in < IN_W;
    }
    in = origin + tap * DILATION_W;
    return static_cast<unsigned>(in) < static_cast<unsigned>(IN_W);
  }
};

// `count` neighbouring channels of an operand as floats; channels from `limit` on are not read.
// vector: how many lie together and aligned; is_view: aligned only where the address happens to be.
template <int count, int vector, int stride, bool is_view, typename T>
EP_DEVICE void load_channels(float (&out)[count], const T *p, int limit) {
  constexpr int width = vector < count ? vector : count;
  EP_UNROLL
  for (int i = 0; i < count; i += width) {
    if (width > 1) {
      if (i < limit) {
        const EpPack<T, width> pack =
            is_view ? ep_load_pack_any<T, width>(p + i) : ep_load_pack<T, width>(p + i);
        EP_UNROLL
        for (int j = 0; j < width; ++j) out[i + j] = ep_to_float(pack.at[j]);
      } else {
        EP_UNROLL
        for (int j = 0; j < width; ++j) out[i + j] = 0.0f;
      }
    } else {
      out[i] = i < limit ? ep_to_float(p[i * stride]) : 0.0f;
    }
  }
}

// Begin to copy the channel vector of a block's filters to shared memory, as part of the present
// group of copies; returns the pointer that takes the vector's place.
template <int count>
EP_DEVICE const float *stage_channels(const float *from, float *to, int first_slot) {
  if (threadIdx.x < count / 4) {
    ep_cp_async16(to + threadIdx.x * 4, from + first_slot + threadIdx.x * 4);
  }
  return to - first_slot;
}

// Apply the epilogue to `count` neighbouring channels of one pixel and store them.
// k: channel of v[0] in y. slot: its place in the padded channel vectors. limit: channels that
// exist from k on.
template <int count>
EP_DEVICE void finish(float (&v)[count], Y_TYPE *y OPERAND_PARAMETERS, const Pixel at, int k,
                      int slot, int limit) {
  OPERAND_LOADS
  EP_UNROLL
  for (int i = 0; i < count; ++i) {
    const float x0 = v[i];
    OPERAND_SCALARS
    v[i] = EPILOGUE;
  }
  Y_TYPE *to = y + at.n * Y_N + at.oh * Y_H + at.ow * Y_W + k * Y_C;
  constexpr int width = Y_VECTOR < count ? Y_VECTOR : count;
  EP_UNROLL
  for (int i = 0; i < count; i += width) {
    if (i < limit) {
      EpPack<Y_TYPE, width> pack;
      EP_UNROLL
      for (int j = 0; j < width; ++j) pack.at[j] = ep_from_float<Y_TYPE>(v[i + j]);
      if (width == 1) {
        to[i * Y_C] = pack.at[0];
      } else if (Y_IS_VIEW) {
        ep_store_pack_any<Y_TYPE, width>(to + i, pack);
      } else {
        ep_store_pack<Y_TYPE, width>(to + i, pack);
      }
    }
  }
}
