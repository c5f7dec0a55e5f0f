/* SSD detection output in two kernels. The first has a block for every class of every image: it
 * gathers the candidates, sorts them by falling score, decodes their boxes and suppresses overlaps.
 * The second, one block, keeps the best of each image over all classes and packs the rows.
 *
 * Sorting keys are (score, position), so that no two are equal and the order does not depend on
 * which thread came first.
 */
#include "ep_cuda.cuh"

// parameters
#define SUPPRESS detection_suppress_default
#define COLLECT detection_collect_default
#define LOC_TYPE float
#define CONF_TYPE float
#define PRIOR_TYPE float
#define OUT_TYPE float
#define LOC_VALUE element
#define CONF_VALUE element
#define PRIOR_VALUE element
#define OUT_VALUE value
#define IMAGES 1
#define PRIORS 100
#define CLASSES 21
#define BOX_SETS 1  // boxes per prior: 1, or one per class
#define BACKGROUND 0
#define CODE 2  // 0 corner, 1 corner_size, 2 center_size
#define USES_VARIANCES 1
#define CANDIDATES 100  // largest number per class
#define KEEP 200        // per image; -1 keeps all
#define ROWS 200
#define CONFIDENCE 0.01f
#define OVERLAP 0.45f
#define ETA 1.0f
#define PRIOR_KEYS 128     // the power of two that holds PRIORS
#define IMAGE_KEYS 4096    // the power of two that holds CLASSES * CANDIDATES
#define NUM_THREADS 256
// end of parameters

typedef unsigned long long sort_key_t;

struct detection_t {
  float score, x1, y1, x2, y2;
};

struct workspace_t {
  sort_key_t class_keys[IMAGES][CLASSES][PRIOR_KEYS];
  sort_key_t image_keys[IMAGE_KEYS];
  detection_t candidates[IMAGES][CLASSES][CANDIDATES];
  detection_t kept[IMAGES][CLASSES][CANDIDATES];
  int num_kept[IMAGES][CLASSES];
};

EP_DEVICE float loc_value(const LOC_TYPE *p, int i) {
  const LOC_TYPE element = p[i];
  return LOC_VALUE;
}
EP_DEVICE float conf_value(const CONF_TYPE *p, int i) {
  const CONF_TYPE element = p[i];
  return CONF_VALUE;
}
EP_DEVICE float prior_value(const PRIOR_TYPE *p, int i) {
  const PRIOR_TYPE element = p[i];
  return PRIOR_VALUE;
}

/* Keys in rising order: falling score, then rising position. */
EP_DEVICE sort_key_t falling_key(float score, unsigned position) {
  const unsigned bits = __float_as_uint(score);
  const unsigned rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<sort_key_t>(~rising) << 32 | position;
}

/* Bitonic sort by one block; count is a power of two. */
EP_DEVICE void sort_rising(sort_key_t *keys, int count) {
  for (int size = 2; size <= count; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int pair = threadIdx.x; pair < count / 2; pair += NUM_THREADS) {
        const int low = pair / step * step * 2 + pair % step;
        const sort_key_t a = keys[low], b = keys[low + step];
        if ((a > b) == ((low & size) == 0)) {
          keys[low] = b;
          keys[low + step] = a;
        }
      }
    }
  }
  __syncthreads();
}

/* Fill up to the next power of two with keys that sort last; returns that power. */
EP_DEVICE int fill_keys(sort_key_t *keys, int count) {
  int padded = 1;
  while (padded < count) padded *= 2;
  for (int i = count + threadIdx.x; i < padded; i += NUM_THREADS) keys[i] = ~sort_key_t(0);
  return padded;
}

EP_DEVICE detection_t decode(const LOC_TYPE *location, const PRIOR_TYPE *priors, int at, int set) {
  float code[4], prior[4], box[4];
  for (int i = 0; i < 4; ++i) {
    prior[i] = prior_value(priors, at * 4 + i);
    code[i] = loc_value(location, (at * BOX_SETS + set) * 4 + i);
    if (USES_VARIANCES) code[i] *= prior_value(priors, (PRIORS + at) * 4 + i);
  }
  const float size[2] = {prior[2] - prior[0], prior[3] - prior[1]};
  if (CODE == 2) {
    for (int i = 0; i < 2; ++i) {
      const float centre = (prior[i] + prior[i + 2]) * 0.5f + code[i] * size[i];
      const float half = expf(code[i + 2]) * size[i] * 0.5f;
      box[i] = centre - half;
      box[i + 2] = centre + half;
    }
  } else {
    for (int i = 0; i < 4; ++i) box[i] = prior[i] + code[i] * (CODE == 1 ? size[i & 1] : 1.0f);
  }
  return {0.0f, box[0], box[1], box[2], box[3]};
}

EP_DEVICE float area(const detection_t &box) {
  return box.x2 < box.x1 || box.y2 < box.y1 ? 0.0f : (box.x2 - box.x1) * (box.y2 - box.y1);
}

EP_DEVICE float overlap(const detection_t &a, const detection_t &b) {
  if (b.x1 > a.x2 || b.x2 < a.x1 || b.y1 > a.y2 || b.y2 < a.y1) return 0.0f;
  const float width = fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1);
  const float height = fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1);
  if (width <= 0.0f || height <= 0.0f) return 0.0f;
  const float shared = width * height;
  return shared / (area(a) + area(b) - shared);
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    SUPPRESS(const LOC_TYPE *locations, const CONF_TYPE *confidences, const PRIOR_TYPE *priors,
             OUT_TYPE *rows, workspace_t *work) {
  __shared__ int num_found;
  __shared__ int is_hit[3];
  const int label = blockIdx.x, image = blockIdx.y, set = BOX_SETS > 1 ? label : 0;
  if (threadIdx.x < 3) is_hit[threadIdx.x] = 0;
  if (threadIdx.x == 0) num_found = 0;
  ep_grid_wait();
  ep_grid_launch();
  __syncthreads();
  sort_key_t *keys = work->class_keys[image][label];
  const CONF_TYPE *scores = confidences + static_cast<ep_i64>(image) * PRIORS * CLASSES + label;
  if (label != BACKGROUND) {
    for (int p = threadIdx.x; p < PRIORS; p += NUM_THREADS) {
      const float score = conf_value(scores, p * CLASSES);
      if (score > CONFIDENCE) keys[atomicAdd(&num_found, 1)] = falling_key(score, p);
    }
  }
  __syncthreads();
  sort_rising(keys, fill_keys(keys, num_found));
  const int count = num_found < CANDIDATES ? num_found : CANDIDATES;
  detection_t *candidates = work->candidates[image][label];
  const LOC_TYPE *location = locations + static_cast<ep_i64>(image) * PRIORS * BOX_SETS * 4;
  for (int i = threadIdx.x; i < count; i += NUM_THREADS) {
    const int prior = static_cast<int>(keys[i] & 0xffffffffu);
    candidates[i] = decode(location, priors, prior, set);
    candidates[i].score = conf_value(scores, prior * CLASSES);
  }
  __syncthreads();
  // Thread t holds the survivors t, t + NUM_THREADS ...: it writes them and is their only reader
  // here. A flag is cleared two barriers after its last reader and one before its next writer.
  detection_t *kept = work->kept[image][label];
  int num_kept = 0;
  float threshold = OVERLAP;
  for (int i = 0; i < count; ++i) {
    const detection_t box = candidates[i];
    bool hits = false;
    for (int k = threadIdx.x; k < num_kept && !hits; k += NUM_THREADS)
      hits = !(overlap(box, kept[k]) <= threshold);
    if (hits) is_hit[i % 3] = 1;
    if (threadIdx.x == 0) is_hit[(i + 1) % 3] = 0;
    __syncthreads();
    if (is_hit[i % 3]) continue;
    if (threadIdx.x == num_kept % NUM_THREADS) kept[num_kept] = box;
    ++num_kept;
    if (ETA < 1.0f && threshold > 0.5f) threshold *= ETA;
  }
  if (threadIdx.x == 0) work->num_kept[image][label] = num_kept;
}

EP_DEVICE void put(OUT_TYPE *at, float value) { *at = OUT_VALUE; }

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    COLLECT(const LOC_TYPE *locations, const CONF_TYPE *confidences, const PRIOR_TYPE *priors,
            OUT_TYPE *rows, workspace_t *work) {
  __shared__ int first_of[CLASSES + 1];  // number of an image's survivors before each class
  __shared__ int num_chosen[NUM_THREADS];
  ep_grid_wait();
  ep_grid_launch();
  int row = 0;
  for (int image = 0; image < IMAGES; ++image) {
    __syncthreads();
    if (threadIdx.x == 0) {
      int sum = 0;
      for (int label = 0; label < CLASSES; ++label) {
        first_of[label] = sum;
        sum += work->num_kept[image][label];
      }
      first_of[CLASSES] = sum;
    }
    __syncthreads();
    const int total = first_of[CLASSES];
    sort_key_t last = ~sort_key_t(0);  // the key of the last survivor that is kept
    if (KEEP >= 0 && KEEP < total) {
      for (int label = 0; label < CLASSES; ++label) {
        const int first = first_of[label], own = first_of[label + 1] - first;
        for (int i = threadIdx.x; i < own; i += NUM_THREADS)
          work->image_keys[first + i] = falling_key(work->kept[image][label][i].score, first + i);
      }
      sort_rising(work->image_keys, fill_keys(work->image_keys, total));
      last = KEEP > 0 ? work->image_keys[KEEP - 1] : 0;
    }
    // Every thread has a run of neighbours, so that the rows come out in order.
    const int run = (total + NUM_THREADS - 1) / NUM_THREADS;
    const int begin = threadIdx.x * run < total ? threadIdx.x * run : total;
    const int end = begin + run < total ? begin + run : total;
    int start = 0;
    for (int pass = 0; pass < 2; ++pass) {
      int chosen = 0, label = 0;
      for (int i = begin; i < end; ++i) {
        while (first_of[label + 1] <= i) ++label;
        const detection_t &item = work->kept[image][label][i - first_of[label]];
        if (KEEP == 0 || falling_key(item.score, i) > last) continue;
        if (pass == 1) {
          OUT_TYPE *out = rows + static_cast<ep_i64>(row + start + chosen) * 7;
          put(out, static_cast<float>(image));
          put(out + 1, static_cast<float>(label));
          put(out + 2, item.score);
          put(out + 3, item.x1);
          put(out + 4, item.y1);
          put(out + 5, item.x2);
          put(out + 6, item.y2);
        }
        ++chosen;
      }
      if (pass == 0) {
        num_chosen[threadIdx.x] = chosen;
        __syncthreads();
        for (unsigned t = 0; t < threadIdx.x; ++t) start += num_chosen[t];
      }
    }
    for (int t = 0; t < NUM_THREADS; ++t) row += num_chosen[t];
  }
  for (int i = row * 7 + threadIdx.x; i < ROWS * 7; i += NUM_THREADS) put(rows + i, -1.0f);
}
