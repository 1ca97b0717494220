// A whole plugin with CUDA kernels, forward and backward: one thread per element, nothing clever. Rounds
// where HuggingFace stores bf16 (contract hf); products are summed in fp32 in ascending order, which it says,
// so that its bits are predicted too.
//
//     nvcc -shared -Xcompiler -fPIC -fmad=false -I. gpu/plugin_example.cu -o example.so
//     assay verify --fixture tiny --pipeline plugin:./example.so --backward
//     assay verify --fixture tiny --pipeline plugin:./example.so --sweep
#include "harness/host/plugin.h"

#include <cstdint>
#include <cstdio>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace {

/// What a kernel works on.
struct ExampleLayer {
  assay_problem in;
  assay_results out;
  const std::uint16_t* d_out = nullptr;  // the output's gradient; of the backward pass, as all that follow
  assay_gradients d = {};
  std::int64_t T = in.tokens;
  std::int64_t H = in.hidden_size;
  std::int64_t I = in.moe_intermediate_size;
  std::int64_t E = in.num_experts;
  std::int64_t K = in.top_k;
  std::int64_t S = T * K;
};

__device__ float value(std::uint16_t bits) { return __bfloat162float(__ushort_as_bfloat16(bits)); }
__device__ std::uint16_t bits(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ float rounded(float x) { return value(bits(x)); }
__device__ std::int64_t element() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

/// The sum of k products, neighbours of a and of b that many elements apart.
__device__ float dot(const std::uint16_t* a, std::int64_t step_a, const std::uint16_t* b, std::int64_t step_b,
                     std::int64_t k) {
  float sum = 0.0f;
  for (std::int64_t i = 0; i < k; ++i) sum += value(a[i * step_a]) * value(b[i * step_b]);
  return sum;
}

/// The sum of n terms as torch's softmax adds them: lane l of a warp adds terms l, l + 32, ..., and lanes are
/// added in pairs 16, 8, 4, 2, 1 apart.
template <class Term>
__device__ float warp_sum(std::int64_t n, Term term) {
  float lane[32] = {};
  for (std::int64_t i = 0; i < n; ++i) lane[i % 32] += term(i);
  for (int apart = 16; apart > 0; apart /= 2)
    for (int i = 0; i < apart; ++i) lane[i] += lane[i + apart];
  return lane[0];
}

__global__ void router(ExampleLayer l) {
  const std::int64_t i = element();
  if (i >= l.T * l.E) return;
  const std::uint16_t* x = l.in.input_hidden_states + i / l.E * l.H;
  l.out.router_logits[i] = bits(dot(x, 1, l.in.gate + i % l.E * l.H, 1, l.H));
}

/// A token's softmax over E in fp32.
struct Shares {
  const std::uint16_t* logits;
  float largest;
  float sum;
  __device__ Shares(const ExampleLayer& l, std::int64_t t)
      : logits(l.out.router_logits + t * l.E), largest(value(logits[0])) {
    for (std::int64_t e = 1; e < l.E; ++e) largest = fmaxf(largest, value(logits[e]));
    sum = warp_sum(l.E, [&](std::int64_t e) { return expf(value(logits[e]) - largest); });
  }
  __device__ float operator()(std::int64_t e) const { return expf(value(logits[e]) - largest) / sum; }
};

// One thread per token: the K largest, the lower index among equals.
__global__ void topk(ExampleLayer l) {
  const std::int64_t t = element();
  if (t >= l.T) return;
  std::int32_t* selected = l.out.selected_experts + t * l.K;
  const Shares share(l, t);
  for (std::int64_t j = 0; j < l.K; ++j) {
    std::int32_t best = -1;
    for (std::int32_t e = 0; e < l.E; ++e) {
      bool taken = false;
      for (std::int64_t i = 0; i < j; ++i) taken |= selected[i] == e;
      if (!taken && (best < 0 || share(e) > share(best))) best = e;
    }
    selected[j] = best;
  }
  const float chosen = warp_sum(l.K, [&](std::int64_t j) { return share(selected[j]); });
  for (std::int64_t j = 0; j < l.K; ++j)
    l.out.topk_weights[t * l.K + j] =
        bits(l.in.norm_topk_prob != 0 ? share(selected[j]) / chosen : share(selected[j]));
}

/// The first of an expert's rows, in expert order.
__device__ std::int64_t first_row(const ExampleLayer& l, std::int64_t expert) {
  std::int64_t row = 0;
  for (std::int64_t s = 0; s < l.S; ++s) row += l.out.selected_experts[s] < expert;
  return row;
}

// One thread per expert: its slots in ascending order.
__global__ void order(ExampleLayer l) {
  const std::int64_t e = element();
  if (e >= l.E) return;
  const std::int64_t begin = first_row(l, e);
  std::int64_t row = begin;
  for (std::int64_t s = 0; s < l.S; ++s)
    if (l.out.selected_experts[s] == e) l.out.gather_indices[row++] = static_cast<std::int32_t>(s);
  l.out.token_counts_by_expert[e] = static_cast<std::int32_t>(row - begin);
}

/// The token of a row in expert order, and its expert.
__device__ std::int64_t token_of(const ExampleLayer& l, std::int64_t row) {
  return l.out.gather_indices[row] / l.K;
}
__device__ std::int64_t expert_of(const ExampleLayer& l, std::int64_t row) {
  return l.out.selected_experts[l.out.gather_indices[row]];
}

__global__ void gate_up(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / (2 * l.I);
  if (row >= l.S) return;
  const std::uint16_t* weights = l.in.gate_up_proj + (expert_of(l, row) * 2 * l.I + i % (2 * l.I)) * l.H;
  l.out.first_gemm[i] = bits(dot(l.in.input_hidden_states + token_of(l, row) * l.H, 1, weights, 1, l.H));
}

__device__ float silu(float gate) { return rounded(gate / (1.0f + expf(-gate))); }

__global__ void swiglu(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / l.I;
  if (row >= l.S) return;
  const std::uint16_t* gate = l.out.first_gemm + row * 2 * l.I + i % l.I;
  l.out.intermediate[i] = bits(silu(value(gate[0])) * value(gate[l.I]));
}

__global__ void down(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / l.H;
  const std::int64_t n = i % l.H;
  if (row >= l.S) return;
  const std::uint16_t* weights = l.in.down_proj + (expert_of(l, row) * l.H + n) * l.I;
  l.out.second_gemm[i] = bits(dot(l.out.intermediate + row * l.I, 1, weights, 1, l.I));
  l.out.hidden_states_unpermute[l.out.gather_indices[row] * l.H + n] = l.out.second_gemm[i];
}

__global__ void merge(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t t = i / l.H;
  if (t >= l.T) return;
  float sum = 0.0f;
  for (std::int64_t s = t * l.K; s < (t + 1) * l.K; ++s)
    sum += rounded(value(l.out.topk_weights[s]) * value(l.out.hidden_states_unpermute[s * l.H + i % l.H]));
  l.out.hidden_states[i] = bits(sum);
}

/// A gradient's elements.
__device__ std::uint16_t* of(const assay_gradient& g) { return static_cast<std::uint16_t*>(g.values); }
/// One as it would be stored, then added to what was there before.
__device__ void store(const assay_gradient& g, std::int64_t i, float x) {
  const auto* before = static_cast<const std::uint16_t*>(g.before);
  of(g)[i] = bits(before == nullptr ? x : rounded(x) + value(before[i]));
}

__global__ void merge_grad_rows(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / l.H;
  if (row >= l.S) return;
  store(l.d.d_second_gemm, i,
        value(l.d_out[token_of(l, row) * l.H + i % l.H]) *
            value(l.out.topk_weights[l.out.gather_indices[row]]));
}

// torch adds this row in an order that depends on how many rows there are. Declared are the products' sums
// alone, so that other bits here are information.
__global__ void merge_grad_weights(ExampleLayer l) {
  const std::int64_t s = element();
  if (s >= l.S) return;
  const std::uint16_t* d_token = l.d_out + s / l.K * l.H;
  const std::uint16_t* row = l.out.hidden_states_unpermute + s * l.H;
  store(l.d.d_topk_weights, s,
        warp_sum(l.H, [&](std::int64_t n) { return rounded(value(d_token[n]) * value(row[n])); }));
}

// One thread per element of d_intermediate, and of both halves of d_first_gemm that follow from it.
__global__ void down_dx_and_swiglu_grad(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / l.I;
  if (row >= l.S) return;
  const std::uint16_t* weights = l.in.down_proj + expert_of(l, row) * l.H * l.I + i % l.I;
  store(l.d.d_intermediate, i, dot(of(l.d.d_second_gemm) + row * l.H, 1, weights, l.I, l.H));
  const float d = value(of(l.d.d_intermediate)[i]);
  const std::int64_t at = row * 2 * l.I + i % l.I;
  const float gate = value(l.out.first_gemm[at]);
  const float sigmoid = 1.0f / (1.0f + expf(-gate));
  const float d_silu = rounded(d * value(l.out.first_gemm[at + l.I]));
  store(l.d.d_first_gemm, at, d_silu * sigmoid * (1.0f + gate * (1.0f - sigmoid)));
  store(l.d.d_first_gemm, at + l.I, d * silu(gate));
}

__global__ void gate_up_dx(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / l.H;
  if (row >= l.S) return;
  const std::uint16_t* weights = l.in.gate_up_proj + expert_of(l, row) * 2 * l.I * l.H + i % l.H;
  store(l.d.d_permuted_hidden_states, i, dot(of(l.d.d_first_gemm) + row * 2 * l.I, 1, weights, l.H, 2 * l.I));
}

// Of weights: sums over an expert's rows, zeros where it has none.
__global__ void down_dw(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t e = i / (l.H * l.I);
  if (e >= l.E) return;
  const std::int64_t begin = first_row(l, e);
  const std::uint16_t* d_second = of(l.d.d_second_gemm) + begin * l.H + i / l.I % l.H;
  const std::uint16_t* middle = l.out.intermediate + begin * l.I + i % l.I;
  store(l.d.d_down_proj, i, dot(d_second, l.H, middle, l.I, l.out.token_counts_by_expert[e]));
}

__global__ void gate_up_dw(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t n = i / l.H % (2 * l.I);
  const std::int64_t e = i / (2 * l.I * l.H);
  if (e >= l.E) return;
  const std::int64_t begin = first_row(l, e);
  float sum = 0.0f;
  for (std::int64_t row = begin; row < begin + l.out.token_counts_by_expert[e]; ++row)
    sum += value(of(l.d.d_first_gemm)[row * 2 * l.I + n]) *
           value(l.in.input_hidden_states[token_of(l, row) * l.H + i % l.H]);
  store(l.d.d_gate_up_proj, i, sum);
}

// One thread per token, through renormalisation and softmax: v are the chosen shares, c the gradients of all,
// 0 for most. d_logit = c v - v (sum of c v), in one rounding.
__global__ void softmax_topk_grad(ExampleLayer l) {
  const std::int64_t t = element();
  if (t >= l.T) return;
  const Shares share(l, t);
  const std::int32_t* selected = l.out.selected_experts + t * l.K;
  const auto d_weight = [&](std::int64_t j) { return value(of(l.d.d_topk_weights)[t * l.K + j]); };
  const float chosen = warp_sum(l.K, [&](std::int64_t j) { return share(selected[j]); });
  const float through_sum =
      warp_sum(l.K, [&](std::int64_t j) { return -d_weight(j) * (share(selected[j]) / chosen / chosen); });
  const auto product = [&](std::int64_t e) {
    for (std::int64_t j = 0; j < l.K; ++j)
      if (selected[j] == e)
        return (l.in.norm_topk_prob != 0 ? d_weight(j) / chosen + through_sum : d_weight(j)) * share(e);
    return 0.0f;
  };
  const float sum = warp_sum(l.E, product);
  for (std::int64_t e = 0; e < l.E; ++e)
    store(l.d.d_router_logits, t * l.E + e, fmaf(-sum, share(e), product(e)));
}

__global__ void router_dw(ExampleLayer l) {
  const std::int64_t i = element();
  if (i >= l.E * l.H) return;
  const std::uint16_t* d_logits = of(l.d.d_router_logits) + i / l.H;
  store(l.d.d_gate, i, dot(d_logits, l.E, l.in.input_hidden_states + i % l.H, l.H, l.T));
}

// A token's rows added one by one in bf16, in the order of their experts; then the router's part.
__global__ void input_grad(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t t = i / l.H;
  if (t >= l.T) return;
  float experts = 0.0f;
  for (std::int64_t row = 0; row < l.S; ++row)
    if (token_of(l, row) == t)
      experts = rounded(experts + value(of(l.d.d_permuted_hidden_states)[row * l.H + i % l.H]));
  store(l.d.d_experts_hidden_states, i, experts);
  const std::uint16_t* d_logits = of(l.d.d_router_logits) + t * l.E;
  store(l.d.d_input_hidden_states, i, experts + rounded(dot(d_logits, 1, l.in.gate + i % l.H, l.H, l.E)));
}

int threads = 128;  // of a block, as the config says

void launch(void (*kernel)(ExampleLayer), std::int64_t elements, const ExampleLayer& layer) {
  if (elements > 0) kernel<<<static_cast<unsigned>((elements + threads - 1) / threads), threads>>>(layer);
}

std::int32_t launched(char* why, std::int64_t why_size) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return ASSAY_OK;
  std::snprintf(why, static_cast<std::size_t>(why_size), "%s", cudaGetErrorString(status));
  return ASSAY_FAILED;
}

std::int32_t forward(const assay_problem* p, const assay_results* r, char* why, std::int64_t why_size) {
  const ExampleLayer l = {*p, *r};
  launch(router, l.T * l.E, l);
  launch(topk, l.T, l);
  launch(order, l.E, l);
  launch(gate_up, l.S * 2 * l.I, l);
  launch(swiglu, l.S * l.I, l);
  launch(down, l.S * l.H, l);
  launch(merge, l.T * l.H, l);
  return launched(why, why_size);
}

std::int32_t backward(const assay_problem* p, const assay_results* r, const std::uint16_t* d_hidden_states,
                      const assay_gradients* d, char* why, std::int64_t why_size) {
  const ExampleLayer l = {*p, *r, d_hidden_states, *d};
  launch(merge_grad_rows, l.S * l.H, l);
  launch(merge_grad_weights, l.S, l);
  launch(down_dx_and_swiglu_grad, l.S * l.I, l);
  launch(softmax_topk_grad, l.T, l);
  if (d->d_gate.values != nullptr) {  // null with --dx-only
    launch(down_dw, l.E * l.H * l.I, l);
    launch(gate_up_dw, l.E * 2 * l.I * l.H, l);
    launch(router_dw, l.E * l.H, l);
  }
  if (d->d_input_hidden_states.values != nullptr) {  // null with --dw-only
    launch(gate_up_dx, l.S * l.H, l);
    launch(input_grad, l.T * l.H, l);
  }
  return launched(why, why_size);
}

}  // namespace

extern "C" const assay_plugin_row* assay_plugin() {
  static const assay_plugin_row row = {ASSAY_PLUGIN_INTERFACE,
                                       ASSAY_DEVICE,
                                       "plain CUDA",
                                       "router_logits selected_experts topk_weights token_counts_by_expert "
                                       "gather_indices first_gemm intermediate second_gemm "
                                       "hidden_states_unpermute hidden_states",
                                       "hf",
                                       "fp32_sequential",
                                       "lowest_index",
                                       forward,
                                       "d_second_gemm d_topk_weights d_intermediate d_down_proj d_first_gemm "
                                       "d_permuted_hidden_states d_gate_up_proj d_router_logits d_gate "
                                       "d_experts_hidden_states d_input_hidden_states",
                                       backward};
  return &row;
}

extern "C" const char* assay_plugin_configs() { return "threads=128 threads=64 threads=256"; }

extern "C" std::int32_t assay_plugin_select(const char* config, char*, std::int64_t) {
  return std::sscanf(config, "threads=%d", &threads) == 1 ? ASSAY_OK : ASSAY_FAILED;
}
