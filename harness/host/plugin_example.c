/* A whole plugin: the layer in plain C, one loop per stage, every product summed in fp32 in ascending order.
   Rounds where HuggingFace stores bf16 (contract hf).

       cc -O2 -shared -fPIC -I. harness/host/plugin_example.c -o example.so -lm
       assay verify --fixture tiny --pipeline plugin:./example.so */
#include "harness/host/plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float from_bf16(uint16_t bits) {
  const uint32_t word = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &word, sizeof(value));
  return value;
}

/* To nearest, ties to even; NaN stays NaN. */
static uint16_t to_bf16(float value) {
  uint32_t word;
  memcpy(&word, &value, sizeof(word));
  if (value != value) return (uint16_t)(word >> 16 | 0x40);
  return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

static float rounded(float value) { return from_bf16(to_bf16(value)); }

static uint16_t dot(const uint16_t* a, const uint16_t* b, int64_t k) {
  float sum = 0.0f;
  for (int64_t i = 0; i < k; ++i) sum += from_bf16(a[i]) * from_bf16(b[i]);
  return to_bf16(sum);
}

/* Softmax over E in fp32, the K largest (the lower index among equals), divided by their sum if asked,
 * rounded once. */
static void route(const assay_problem* p, const uint16_t* logits, float* share, int32_t* selected,
                  uint16_t* weights) {
  float largest = from_bf16(logits[0]);
  float sum = 0.0f;
  float chosen = 0.0f;
  for (int64_t e = 1; e < p->num_experts; ++e) largest = fmaxf(largest, from_bf16(logits[e]));
  for (int64_t e = 0; e < p->num_experts; ++e) sum += share[e] = expf(from_bf16(logits[e]) - largest);
  for (int64_t e = 0; e < p->num_experts; ++e) share[e] /= sum;
  for (int64_t j = 0; j < p->top_k; ++j) {
    int32_t best = -1;
    for (int32_t e = 0; e < (int32_t)p->num_experts; ++e) {
      int taken = 0;
      for (int64_t i = 0; i < j; ++i) taken |= selected[i] == e;
      if (!taken && (best < 0 || share[e] > share[best])) best = e;
    }
    selected[j] = best;
    chosen += share[best];
  }
  for (int64_t j = 0; j < p->top_k; ++j)
    weights[j] = to_bf16(p->norm_topk_prob ? share[selected[j]] / chosen : share[selected[j]]);
}

/* How many slots each expert has, and the slots sorted by expert, stably. */
static void order(const assay_problem* p, const assay_results* r) {
  const int64_t slots = p->tokens * p->top_k;
  int64_t row = 0;
  for (int32_t e = 0; e < (int32_t)p->num_experts; ++e) {
    const int64_t begin = row;
    for (int64_t s = 0; s < slots; ++s)
      if (r->selected_experts[s] == e) r->gather_indices[row++] = (int32_t)s;
    r->token_counts_by_expert[e] = (int32_t)(row - begin);
  }
}

static int32_t forward(const assay_problem* p, const assay_results* r, char* why, int64_t why_size) {
  const int64_t H = p->hidden_size;
  const int64_t I = p->moe_intermediate_size;
  const int64_t E = p->num_experts;
  const int64_t K = p->top_k;
  float* share = malloc((size_t)E * sizeof(float));
  if (share == NULL) {
    strncpy(why, "no memory for one token's probabilities", (size_t)why_size - 1);
    return ASSAY_FAILED;
  }
  for (int64_t t = 0; t < p->tokens; ++t) {
    for (int64_t e = 0; e < E; ++e)
      r->router_logits[t * E + e] = dot(p->input_hidden_states + t * H, p->gate + e * H, H);
    route(p, r->router_logits + t * E, share, r->selected_experts + t * K, r->topk_weights + t * K);
  }
  free(share);
  order(p, r);
  for (int64_t row = 0; row < p->tokens * K; ++row) {
    const int64_t slot = r->gather_indices[row];
    const int64_t e = r->selected_experts[slot];
    uint16_t* first = r->first_gemm + row * 2 * I;
    uint16_t* middle = r->intermediate + row * I;
    uint16_t* second = r->second_gemm + row * H;
    for (int64_t n = 0; n < 2 * I; ++n)
      first[n] = dot(p->input_hidden_states + slot / K * H, p->gate_up_proj + (e * 2 * I + n) * H, H);
    for (int64_t n = 0; n < I; ++n) {
      const float g = from_bf16(first[n]);
      middle[n] = to_bf16(rounded(g / (1.0f + expf(-g))) * from_bf16(first[I + n]));
    }
    for (int64_t n = 0; n < H; ++n) second[n] = dot(middle, p->down_proj + (e * H + n) * I, I);
    memcpy(r->hidden_states_unpermute + slot * H, second, (size_t)H * sizeof(uint16_t));
  }
  for (int64_t t = 0; t < p->tokens; ++t)
    for (int64_t n = 0; n < H; ++n) {
      float sum = 0.0f;
      for (int64_t s = t * K; s < (t + 1) * K; ++s)
        sum += rounded(from_bf16(r->topk_weights[s]) * from_bf16(r->hidden_states_unpermute[s * H + n]));
      r->hidden_states[t * H + n] = to_bf16(sum);
    }
  return ASSAY_OK;
}

const assay_plugin_row* assay_plugin(void) {
  static const assay_plugin_row row = {
      .interface = ASSAY_PLUGIN_INTERFACE,
      .memory = ASSAY_HOST,
      .name = "plain C",
      .fields =
          "router_logits selected_experts topk_weights token_counts_by_expert gather_indices first_gemm "
          "intermediate second_gemm "
          "hidden_states_unpermute hidden_states",
      .contract = "hf",
      .accumulators = "",
      .ties = "lowest_index",
      .forward = forward,
  };
  return &row;
}
