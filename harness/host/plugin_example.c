/* A whole plugin: the layer and its backward pass in plain C, one loop per stage, every product summed in
   fp32 in ascending order. Rounds where HuggingFace stores bf16 (contract hf). Its configs sum in blocks.

       cc -O2 -shared -fPIC -I. harness/host/plugin_example.c -o example.so -lm
       assay verify --fixture tiny --pipeline plugin:./example.so --backward
       assay verify --fixture tiny --pipeline plugin:./example.so --sweep */
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

/* Products that are summed by themselves before they join a sum; 0: all of them. The config says. */
static int64_t block = 0;

/* The sum of k products, elements of b that many apart. */
static float sum_of(const uint16_t* a, const uint16_t* b, int64_t apart, int64_t k) {
  const int64_t step = block > 0 ? block : k;
  float sum = 0.0f;
  for (int64_t begin = 0; begin < k; begin += step) {
    float of_block = 0.0f;
    for (int64_t i = begin; i < k && i < begin + step; ++i)
      of_block += from_bf16(a[i]) * from_bf16(b[i * apart]);
    sum += of_block;
  }
  return sum;
}

static uint16_t dot(const uint16_t* a, const uint16_t* b, int64_t k) { return to_bf16(sum_of(a, b, 1, k)); }

/* Softmax over E in fp32. */
static void softmax(const assay_problem* p, const uint16_t* logits, float* share) {
  float largest = from_bf16(logits[0]);
  float sum = 0.0f;
  for (int64_t e = 1; e < p->num_experts; ++e) largest = fmaxf(largest, from_bf16(logits[e]));
  for (int64_t e = 0; e < p->num_experts; ++e) sum += share[e] = expf(from_bf16(logits[e]) - largest);
  for (int64_t e = 0; e < p->num_experts; ++e) share[e] /= sum;
}

/* The K largest shares (the lower index among equals), divided by their sum if asked, rounded once. */
static void choose(const assay_problem* p, const float* share, int32_t* selected, uint16_t* weights) {
  float chosen = 0.0f;
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
    softmax(p, r->router_logits + t * E, share);
    choose(p, share, r->selected_experts + t * K, r->topk_weights + t * K);
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

/* A gradient's element, on top of what was there before: the product as it would be stored, then the sum. */
static void store(const assay_gradient* g, int64_t at, float value) {
  if (g->dtype == ASSAY_FLOAT32)
    ((float*)g->values)[at] = value + (g->before == NULL ? 0.0f : ((const float*)g->before)[at]);
  if (g->dtype == ASSAY_BF16)
    ((uint16_t*)g->values)[at] =
        to_bf16(g->before == NULL ? value : rounded(value) + from_bf16(((const uint16_t*)g->before)[at]));
}

/* One row in expert order, from the output's gradient of its token to that of its input. */
static void row_gradients(const assay_problem* p, const assay_results* r, const uint16_t* d_out,
                          const assay_gradients* g, int64_t row) {
  const int64_t H = p->hidden_size;
  const int64_t I = p->moe_intermediate_size;
  const int64_t slot = r->gather_indices[row];
  const int64_t e = r->selected_experts[slot];
  const float weight = from_bf16(r->topk_weights[slot]);
  const uint16_t* first = r->first_gemm + row * 2 * I;
  const uint16_t* d_token = d_out + slot / p->top_k * H;
  uint16_t* d_second = (uint16_t*)g->d_second_gemm.values + row * H;
  uint16_t* d_middle = (uint16_t*)g->d_intermediate.values + row * I;
  uint16_t* d_first = (uint16_t*)g->d_first_gemm.values + row * 2 * I;
  float d_weight = 0.0f;
  for (int64_t n = 0; n < H; ++n) {
    d_second[n] = to_bf16(from_bf16(d_token[n]) * weight);
    d_weight += rounded(from_bf16(d_token[n]) * from_bf16(r->hidden_states_unpermute[slot * H + n]));
  }
  store(&g->d_topk_weights, slot, d_weight);
  for (int64_t n = 0; n < I; ++n) {
    d_middle[n] = to_bf16(sum_of(d_second, p->down_proj + e * H * I + n, I, H));
    const float gate = from_bf16(first[n]);
    const float d = from_bf16(d_middle[n]);
    const float sigmoid = 1.0f / (1.0f + expf(-gate));
    const float d_silu = rounded(d * from_bf16(first[I + n]));
    d_first[n] = to_bf16(d_silu * sigmoid * (1.0f + gate * (1.0f - sigmoid)));
    d_first[I + n] = to_bf16(d * rounded(gate / (1.0f + expf(-gate))));
  }
  for (int64_t n = 0; g->d_permuted_hidden_states.values != NULL && n < H; ++n)
    store(&g->d_permuted_hidden_states, row * H + n,
          sum_of(d_first, p->gate_up_proj + e * 2 * I * H + n, H, 2 * I));
}

/* Of one expert's weights: sums over its rows, which begin at `begin`. */
static void expert_gradients(const assay_problem* p, const assay_results* r, const assay_gradients* g,
                             int64_t e, int64_t begin) {
  const int64_t H = p->hidden_size;
  const int64_t I = p->moe_intermediate_size;
  const int64_t end = begin + r->token_counts_by_expert[e];
  const uint16_t* d_second = g->d_second_gemm.values;
  const uint16_t* d_first = g->d_first_gemm.values;
  for (int64_t n = 0; n < H; ++n)
    for (int64_t i = 0; i < I; ++i) {
      float sum = 0.0f;
      for (int64_t row = begin; row < end; ++row)
        sum += from_bf16(d_second[row * H + n]) * from_bf16(r->intermediate[row * I + i]);
      store(&g->d_down_proj, (e * H + n) * I + i, sum);
    }
  for (int64_t n = 0; n < 2 * I; ++n)
    for (int64_t h = 0; h < H; ++h) {
      float sum = 0.0f;
      for (int64_t row = begin; row < end; ++row)
        sum += from_bf16(d_first[row * 2 * I + n]) *
               from_bf16(p->input_hidden_states[r->gather_indices[row] / p->top_k * H + h]);
      store(&g->d_gate_up_proj, (e * 2 * I + n) * H + h, sum);
    }
}

/* From the weights of a token to all its logits: v are the chosen shares, D their sum, c the gradients of the
 * shares. d_logit = c v - v (sum of c v), in one rounding. */
static void logit_gradients(const assay_problem* p, const assay_results* r, const assay_gradients* g,
                            int64_t t, float* share, float* product) {
  const int64_t E = p->num_experts;
  const int64_t K = p->top_k;
  const int32_t* selected = r->selected_experts + t * K;
  const uint16_t* d_weights = (const uint16_t*)g->d_topk_weights.values + t * K;
  float chosen = 0.0f;
  float through_sum = 0.0f;
  float sum = 0.0f;
  softmax(p, r->router_logits + t * E, share);
  for (int64_t j = 0; j < K; ++j) chosen += share[selected[j]];
  for (int64_t j = 0; j < K; ++j)
    through_sum -= from_bf16(d_weights[j]) * (share[selected[j]] / chosen / chosen);
  memset(product, 0, (size_t)E * sizeof(float));
  for (int64_t j = 0; j < K; ++j) {
    const float d = from_bf16(d_weights[j]);
    product[selected[j]] = (p->norm_topk_prob ? d / chosen + through_sum : d) * share[selected[j]];
  }
  for (int64_t e = 0; e < E; ++e) sum += product[e];
  for (int64_t e = 0; e < E; ++e) store(&g->d_router_logits, t * E + e, fmaf(-sum, share[e], product[e]));
}

/* A token's rows added one by one in bf16, in the order of their experts; then the router's part. */
static void input_gradients(const assay_problem* p, const assay_results* r, const assay_gradients* g) {
  const int64_t H = p->hidden_size;
  const int64_t E = p->num_experts;
  const uint16_t* d_rows = g->d_permuted_hidden_states.values;
  const uint16_t* d_logits = g->d_router_logits.values;
  uint16_t* d_experts = g->d_experts_hidden_states.values;
  memset(d_experts, 0, (size_t)(p->tokens * H) * sizeof(uint16_t));
  for (int64_t row = 0; row < p->tokens * p->top_k; ++row) {
    uint16_t* of_token = d_experts + r->gather_indices[row] / p->top_k * H;
    for (int64_t n = 0; n < H; ++n)
      of_token[n] = to_bf16(from_bf16(of_token[n]) + from_bf16(d_rows[row * H + n]));
  }
  for (int64_t t = 0; t < p->tokens; ++t)
    for (int64_t n = 0; n < H; ++n)
      store(&g->d_input_hidden_states, t * H + n,
            from_bf16(d_experts[t * H + n]) + rounded(sum_of(d_logits + t * E, p->gate + n, H, E)));
}

static int32_t backward(const assay_problem* p, const assay_results* r, const uint16_t* d_hidden_states,
                        const assay_gradients* g, char* why, int64_t why_size) {
  const int64_t H = p->hidden_size;
  const int64_t E = p->num_experts;
  const uint16_t* d_logits = g->d_router_logits.values;
  float* room = malloc((size_t)E * 2 * sizeof(float));
  int64_t begin = 0;
  if (room == NULL) {
    strncpy(why, "no memory for one token's probabilities", (size_t)why_size - 1);
    return ASSAY_FAILED;
  }
  for (int64_t row = 0; row < p->tokens * p->top_k; ++row) row_gradients(p, r, d_hidden_states, g, row);
  for (int64_t t = 0; t < p->tokens; ++t) logit_gradients(p, r, g, t, room, room + E);
  free(room);
  if (g->d_gate.values != NULL) { /* null with --dx-only */
    for (int64_t e = 0; e < E; begin += r->token_counts_by_expert[e], ++e)
      expert_gradients(p, r, g, e, begin);
    for (int64_t e = 0; e < E; ++e)
      for (int64_t n = 0; n < H; ++n) {
        float sum = 0.0f;
        for (int64_t t = 0; t < p->tokens; ++t)
          sum += from_bf16(d_logits[t * E + e]) * from_bf16(p->input_hidden_states[t * H + n]);
        store(&g->d_gate, e * H + n, sum);
      }
  }
  if (g->d_input_hidden_states.values != NULL) input_gradients(p, r, g); /* null with --dw-only */
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
      .accumulators = "", /* no order is promised: the configs sum in blocks, so that bounds alone judge */
      .ties = "lowest_index",
      .forward = forward,
      .gradients =
          "d_second_gemm d_topk_weights d_intermediate d_down_proj d_first_gemm d_permuted_hidden_states "
          "d_gate_up_proj d_router_logits d_gate d_experts_hidden_states d_input_hidden_states",
      .backward = backward,
  };
  return &row;
}

const char* assay_plugin_configs(void) { return "block=all block=8 block=64"; }

int32_t assay_plugin_select(const char* config, char* why, int64_t why_size) {
  (void)why; /* each of them runs everywhere */
  (void)why_size;
  block = strcmp(config, "block=8") == 0 ? 8 : strcmp(config, "block=64") == 0 ? 64 : 0;
  return ASSAY_OK;
}
