// SSD detection output: decode boxes, suppress overlaps per class, keep the best of each image.
// One work unit: rows of all images are packed densely, so their order depends on every class.
#include "ep_vector.h"

// parameters
#define SYMBOL detection_output
#define IMAGES 1
#define PRIORS 100
#define CLASSES 21
#define BOX_SETS 1  // boxes per prior: 1, or one per class
#define BACKGROUND 0
#define CODE 2  // 0 corner, 1 corner_size, 2 center_size
#define USES_VARIANCES 1
#define CANDIDATES 100  // largest number per class
#define KEEP 200  // per image; -1 keeps all
#define ROWS 200
#define CONFIDENCE 0.01f
#define OVERLAP 0.45f
#define ETA 1.0f
// end of parameters

typedef struct {
  float boxes[BOX_SETS][PRIORS][4];
  float score[PRIORS];
  int32_t order[PRIORS], spare[PRIORS];
  int32_t num_kept;
  float kept_score[CLASSES * CANDIDATES];
  int32_t kept_label[CLASSES * CANDIDATES], kept_prior[CLASSES * CANDIDATES];
  int32_t rank[CLASSES * CANDIDATES], rank_spare[CLASSES * CANDIDATES];
} scratch_t;

// Sort positions by falling key; equal keys keep their order (merge sort, bottom up).
EP_NOINLINE void sort_falling(const float *key, int32_t *items, int32_t *spare, int32_t count) {
  for (int32_t width = 1; width < count; width *= 2) {
    for (int32_t start = 0; start < count; start += 2 * width) {
      const int32_t middle = start + width < count ? start + width : count;
      const int32_t end = start + 2 * width < count ? start + 2 * width : count;
      int32_t a = start, b = middle;
      for (int32_t i = start; i < end; ++i) {
        const int from_a = b >= end || (a < middle && key[items[a]] >= key[items[b]]);
        spare[i] = from_a ? items[a++] : items[b++];
      }
    }
    memcpy(items, spare, sizeof(int32_t) * (size_t)count);
  }
}

EP_INLINE float area(const float *box) {
  return box[2] < box[0] || box[3] < box[1] ? 0.0f : (box[2] - box[0]) * (box[3] - box[1]);
}

EP_INLINE float overlap(const float *a, const float *b) {
  if (b[0] > a[2] || b[2] < a[0] || b[1] > a[3] || b[3] < a[1]) return 0.0f;
  const float width = ep_min_s(a[2], b[2]) - ep_max_s(a[0], b[0]);
  const float height = ep_min_s(a[3], b[3]) - ep_max_s(a[1], b[1]);
  if (width <= 0.0f || height <= 0.0f) return 0.0f;
  const float shared = width * height;
  return shared / (area(a) + area(b) - shared);
}

EP_NOINLINE void decode(const float *location, const float *priors, scratch_t *s) {
  const float *variances = priors + PRIORS * 4;
  for (int32_t p = 0; p < PRIORS; ++p) {
    const float *prior = priors + p * 4, *variance = variances + p * 4;
    const float size[2] = {prior[2] - prior[0], prior[3] - prior[1]};
    for (int32_t set = 0; set < BOX_SETS; ++set) {
      const float *code = location + (p * BOX_SETS + set) * 4;
      float *box = s->boxes[set][p];
      float scaled[4];
      for (int i = 0; i < 4; ++i) scaled[i] = USES_VARIANCES ? code[i] * variance[i] : code[i];
      if (CODE == 2) {
        for (int i = 0; i < 2; ++i) {
          const float centre = (prior[i] + prior[i + 2]) * 0.5f + scaled[i] * size[i];
          const float half = ep_exp_s(scaled[i + 2]) * size[i] * 0.5f;
          box[i] = centre - half;
          box[i + 2] = centre + half;
        }
      } else {
        for (int i = 0; i < 4; ++i) box[i] = prior[i] + scaled[i] * (CODE == 1 ? size[i & 1] : 1.0f);
      }
    }
  }
}

// Greedy suppression of one class; survivors are appended by falling score.
EP_NOINLINE void suppress(const float *scores, int32_t label, scratch_t *s) {
  int32_t count = 0;
  for (int32_t p = 0; p < PRIORS; ++p) {
    s->score[p] = scores[p * CLASSES + label];
    if (s->score[p] > CONFIDENCE) s->order[count++] = p;
  }
  sort_falling(s->score, s->order, s->spare, count);
  if (count > CANDIDATES) count = CANDIDATES;
  const float(*boxes)[4] = (const float(*)[4])s->boxes[BOX_SETS > 1 ? label : 0];
  const int32_t first = s->num_kept;
  float threshold = OVERLAP;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t prior = s->order[i];
    int survives = 1;
    for (int32_t k = first; k < s->num_kept && survives; ++k)
      survives = overlap(boxes[prior], boxes[s->kept_prior[k]]) <= threshold;
    if (!survives) continue;
    s->kept_score[s->num_kept] = s->score[prior];
    s->kept_label[s->num_kept] = label;
    s->kept_prior[s->num_kept++] = prior;
    if (ETA < 1.0f && threshold > 0.5f) threshold *= ETA;
  }
}

EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
  if (unit_begin >= unit_end) return;
  const float *locations = args[0], *confidences = args[1], *priors = args[2];
  float *rows = args[3];
  scratch_t *s = scratch;
  int32_t row = 0;
  for (int32_t image = 0; image < IMAGES; ++image) {
    decode(locations + (int64_t)image * PRIORS * BOX_SETS * 4, priors, s);
    s->num_kept = 0;
    for (int32_t label = 0; label < CLASSES; ++label)
      if (label != BACKGROUND)
        suppress(confidences + (int64_t)image * PRIORS * CLASSES, label, s);
    int32_t count = s->num_kept;
    for (int32_t i = 0; i < count; ++i) s->rank[i] = i;
    const int32_t limit = KEEP;
    if (limit >= 0 && limit < count) {
      sort_falling(s->kept_score, s->rank, s->rank_spare, count);
      count = limit;
    }
    for (int32_t label = 0; label < CLASSES; ++label) {
      for (int32_t i = 0; i < count; ++i) {
        const int32_t k = s->rank[i];
        if (s->kept_label[k] != label) continue;
        const float *box = s->boxes[BOX_SETS > 1 ? label : 0][s->kept_prior[k]];
        float *out = rows + (int64_t)row++ * 7;
        out[0] = (float)image;
        out[1] = (float)label;
        out[2] = s->kept_score[k];
        for (int i = 0; i < 4; ++i) out[3 + i] = box[i];
      }
    }
  }
  for (int64_t i = (int64_t)row * 7; i < (int64_t)ROWS * 7; ++i) rows[i] = -1.0f;
}
