// A whole plugin with CUDA kernels: one thread per element, nothing clever. Rounds where HuggingFace stores
// bf16 (contract hf); products are summed in fp32 in ascending order, which it says, so that its bits are
// predicted too.
//
//     nvcc -shared -Xcompiler -fPIC -fmad=false -I. gpu/plugin_example.cu -o example.so
//     assay verify --fixture tiny --pipeline plugin:./example.so
#include "harness/host/plugin.h"

#include <cstdint>
#include <cstdio>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace {

using bf16 = __nv_bfloat16;

struct ExampleLayer {
  std::int64_t T;
  std::int64_t H;
  std::int64_t I;
  std::int64_t E;
  std::int64_t K;
  bool renormalise;
  const bf16* x;
  const bf16* gate;
  const bf16* gate_up;
  const bf16* down;
  bf16* logits;
  bf16* weights;
  bf16* first;
  bf16* middle;
  bf16* second;
  bf16* unpermuted;
  bf16* out;
  std::int32_t* selected;
  std::int32_t* counts;
  std::int32_t* gather;
};

__device__ bf16 dot(const bf16* a, const bf16* b, std::int64_t k) {
  float sum = 0.0f;
  for (std::int64_t i = 0; i < k; ++i) sum += __bfloat162float(a[i]) * __bfloat162float(b[i]);
  return __float2bfloat16_rn(sum);
}
__device__ float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }
__device__ std::int64_t element() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

__global__ void router(ExampleLayer l) {
  const std::int64_t i = element();
  if (i < l.T * l.E) l.logits[i] = dot(l.x + i / l.E * l.H, l.gate + i % l.E * l.H, l.H);
}

// One thread per token: softmax in fp32, the K largest, the lower index among equals.
__global__ void topk(ExampleLayer l) {
  const std::int64_t t = element();
  if (t >= l.T) return;
  const bf16* logits = l.logits + t * l.E;
  std::int32_t* selected = l.selected + t * l.K;
  float largest = __bfloat162float(logits[0]);
  float sum = 0.0f;
  float chosen = 0.0f;
  for (std::int64_t e = 1; e < l.E; ++e) largest = fmaxf(largest, __bfloat162float(logits[e]));
  for (std::int64_t e = 0; e < l.E; ++e) sum += expf(__bfloat162float(logits[e]) - largest);
  const auto share = [&](std::int64_t e) { return expf(__bfloat162float(logits[e]) - largest) / sum; };
  for (std::int64_t j = 0; j < l.K; ++j) {
    std::int32_t best = -1;
    for (std::int32_t e = 0; e < l.E; ++e) {
      bool taken = false;
      for (std::int64_t i = 0; i < j; ++i) taken |= selected[i] == e;
      if (!taken && (best < 0 || share(e) > share(best))) best = e;
    }
    selected[j] = best;
    chosen += share(best);
  }
  for (std::int64_t j = 0; j < l.K; ++j)
    l.weights[t * l.K + j] =
        __float2bfloat16_rn(l.renormalise ? share(selected[j]) / chosen : share(selected[j]));
}

// One thread per expert: its first row, then its slots in ascending order.
__global__ void order(ExampleLayer l) {
  const std::int64_t e = element();
  const std::int64_t slots = l.T * l.K;
  if (e >= l.E) return;
  std::int64_t row = 0;
  std::int64_t begin;
  for (std::int64_t s = 0; s < slots; ++s) row += l.selected[s] < e;
  begin = row;
  for (std::int64_t s = 0; s < slots; ++s)
    if (l.selected[s] == e) l.gather[row++] = static_cast<std::int32_t>(s);
  l.counts[e] = static_cast<std::int32_t>(row - begin);
}

__global__ void gate_up(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / (2 * l.I);
  const std::int64_t n = i % (2 * l.I);
  if (row >= l.T * l.K) return;
  const std::int64_t slot = l.gather[row];
  l.first[i] = dot(l.x + slot / l.K * l.H, l.gate_up + (l.selected[slot] * 2 * l.I + n) * l.H, l.H);
}

__global__ void swiglu(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / l.I;
  const std::int64_t n = i % l.I;
  if (row >= l.T * l.K) return;
  const float g = __bfloat162float(l.first[row * 2 * l.I + n]);
  l.middle[i] = __float2bfloat16_rn(rounded(g / (1.0f + expf(-g))) *
                                    __bfloat162float(l.first[row * 2 * l.I + l.I + n]));
}

__global__ void down(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t row = i / l.H;
  const std::int64_t n = i % l.H;
  if (row >= l.T * l.K) return;
  const std::int64_t slot = l.gather[row];
  l.second[i] = dot(l.middle + row * l.I, l.down + (l.selected[slot] * l.H + n) * l.I, l.I);
  l.unpermuted[slot * l.H + n] = l.second[i];
}

__global__ void merge(ExampleLayer l) {
  const std::int64_t i = element();
  const std::int64_t t = i / l.H;
  const std::int64_t n = i % l.H;
  if (t >= l.T) return;
  float sum = 0.0f;
  for (std::int64_t s = t * l.K; s < (t + 1) * l.K; ++s)
    sum += rounded(__bfloat162float(l.weights[s]) * __bfloat162float(l.unpermuted[s * l.H + n]));
  l.out[i] = __float2bfloat16_rn(sum);
}

void launch(void (*kernel)(ExampleLayer), std::int64_t elements, const ExampleLayer& layer) {
  constexpr int kThreads = 128;
  if (elements > 0) kernel<<<static_cast<unsigned>((elements + kThreads - 1) / kThreads), kThreads>>>(layer);
}

std::int32_t forward(const assay_problem* p, const assay_results* r, char* why, std::int64_t why_size) {
  const auto in = [](const std::uint16_t* pointer) { return reinterpret_cast<const bf16*>(pointer); };
  const auto out = [](std::uint16_t* pointer) { return reinterpret_cast<bf16*>(pointer); };
  const ExampleLayer l = {p->tokens,
                          p->hidden_size,
                          p->moe_intermediate_size,
                          p->num_experts,
                          p->top_k,
                          p->norm_topk_prob != 0,
                          in(p->input_hidden_states),
                          in(p->gate),
                          in(p->gate_up_proj),
                          in(p->down_proj),
                          out(r->router_logits),
                          out(r->topk_weights),
                          out(r->first_gemm),
                          out(r->intermediate),
                          out(r->second_gemm),
                          out(r->hidden_states_unpermute),
                          out(r->hidden_states),
                          r->selected_experts,
                          r->token_counts_by_expert,
                          r->gather_indices};
  const std::int64_t rows = l.T * l.K;
  launch(router, l.T * l.E, l);
  launch(topk, l.T, l);
  launch(order, l.E, l);
  launch(gate_up, rows * 2 * l.I, l);
  launch(swiglu, rows * l.I, l);
  launch(down, rows * l.H, l);
  launch(merge, l.T * l.H, l);
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return ASSAY_OK;
  std::snprintf(why, static_cast<std::size_t>(why_size), "%s", cudaGetErrorString(status));
  return ASSAY_FAILED;
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
                                       forward};
  return &row;
}
