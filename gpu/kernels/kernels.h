// The device steps of the layer as host functions. Each launches on `stream`, checks its sizes, and never
// synchronises. T tokens, H hidden_size, I moe_intermediate_size, E num_experts, K top_k, S = T * K routed
// rows; row r is in expert order, flat slot s = t * K + j. Pointers are device memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "gpu/kernels/gradient_store.h"
#include "gpu/kernels/kernel_limits.h"
#include "gpu/kernels/rounding.h"
#include "harness/contract/config.h"
#include "harness/contract/product_id.h"

namespace assay::gpu {

using bf16 = __nv_bfloat16;

// Most rows of a grouped product's tile: where an expert's rows are cut into full tiles and a rest, and of
// Hopper's wide tiles, where they are divided evenly.
inline constexpr int kTileRows = 128;
inline constexpr int kWideTileRows = 144;

/// One tile of rows of one expert; `first` is a row in expert order.
struct alignas(16) RowTile {
  std::int32_t expert;
  std::int32_t first;
  std::int32_t rows;     // 1 .. kTileRows or kWideTileRows
  std::int32_t partner;  // rows of the tile that goes together with this one: the next one, or negative, the
                         // one before; else 0
};

/// How far the persistent blocks of a product have got. Each product has its own: launches overlap.
struct TileCounter {
  std::int32_t next;      // tile nobody has taken yet, less the blocks' first ones
  std::int32_t finished;  // blocks; the last one winds both back
};

/// Written with the row tiles.
struct TileCounters {
  std::int32_t row_tiles;
  TileCounter of[kProductCount];  // by ProductId
};

/// How tokens are split so that counting and ordering stay stable and parallel.
struct Chunks {
  std::int64_t tokens_per_chunk = 0;
  std::int64_t count = 0;
};
Chunks chunks_of(std::int64_t tokens);

/// Counts of a chunk in DeviceRouting: 16-byte aligned.
__host__ __device__ constexpr std::int64_t padded_counts(std::int64_t experts) {
  return (experts + 3) / 4 * 4;
}

/// Upper bound of the number of row tiles, known without looking at the routing.
std::int64_t max_row_tiles(const Sizes& sizes);

/// Everything later steps need to know about the routing.
struct DeviceRouting {
  std::int32_t* selected_experts;  // [T, K]
  bf16* topk_weights;              // [T, K]
  std::int32_t* chunk_counts;      // [chunks, padded_counts(E)]
  std::int32_t* counts;            // [E] token_counts_by_expert
  std::int32_t* first_rows;        // [E] the experts' first rows, written with the row tiles
  std::int32_t* gather_indices;    // [S] row -> slot
  std::int32_t* row_of_slot;       // [S] slot -> row
  RowTile* tiles;                  // [max_row_tiles]
  TileCounters* counters;          // [1]
  std::uint32_t* finished;         // [E] elements of the experts' intermediate that are stored; 0 at first
  bool wide;                       // the tiles are wide ones
};

/// In device memory.
inline TileCounter* counter_of(ProductId product, const DeviceRouting& routing) {
  return &routing.counters->of[static_cast<std::size_t>(product)];
}

/// logits[t, e] = rb(sum_h x[t, h] gate[e, h]), K walked in ascending steps of 16 without a split. x [T, H],
/// gate [E, H].
void router_product(const bf16* x, const bf16* gate, bf16* logits, const Sizes& sizes, cudaStream_t stream);

/// Rows of d_router_logits where they must be 16-byte aligned.
__host__ __device__ constexpr std::int64_t padded_experts(std::int64_t experts) {
  return (experts + 7) / 8 * 8;
}

/// Both gradients of the router's product, without a split of K either. Rows of d_logits are
/// padded_experts(E) long, zeros behind the last expert.
struct RouterGrad {
  const bf16* d_logits;   // [T, padded_experts(E)]
  const bf16* x;          // [T, H]
  const bf16* gate;       // [E, H]
  bf16* d_x;              // [T, H]: the router's part of the input's gradient, summed over E
  WeightGradient d_gate;  // [E, H], summed over T
};
void router_dx(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream);
void router_dw(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream);

/// Elements [first, first + elements) of a weight's gradient get `product`, as its store says.
void keep_gradient(const float* product, const WeightGradient& out, std::int64_t first, std::int64_t elements,
                   cudaStream_t stream);

/// fp32 softmax, the K largest probabilities (lowest index first among equals), renormalisation, bf16
/// weights, counts per chunk. With a single chunk also what order_by_expert does.
void softmax_topk(const bf16* logits, const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream);

/// counts, gather_indices (stable), row_of_slot and the row tiles from what softmax_topk left, which comes
/// right before.
void order_by_expert(const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream);

/// Row tiles and counters alone, from the counts: for products that want other tiles than those before them.
void order_row_tiles(const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream);

/// permuted[row_of_slot[s]] = x[s / K]. x [T, H], permuted [S, H].
void permute_rows(const bf16* x, const std::int32_t* row_of_slot, bf16* permuted, const Sizes& sizes,
                  cudaStream_t stream);

/// slots[gather_indices[r]] = rows[r]. Both [S, H].
void unpermute_rows(const bf16* rows, const std::int32_t* gather_indices, bf16* slots, const Sizes& sizes,
                    cudaStream_t stream);

/// intermediate = rb(rb(silu(gate half)) * up half). first_gemm [S, 2I], intermediate [S, I].
void swiglu(const bf16* first_gemm, bf16* intermediate, const Sizes& sizes, cudaStream_t stream);

/// d_first_gemm [S, 2I] from d_intermediate [S, I] and first_gemm [S, 2I], as autograd rounds (swiglu.cuh).
void swiglu_grad(const bf16* d_intermediate, const bf16* first_gemm, bf16* d_first_gemm, const Sizes& sizes,
                 cudaStream_t stream);

/// The same to the last bit on sm_90, at the speed of memory (swiglu_grad_sm90.cu).
void swiglu_grad_sm90(const bf16* d_intermediate, const bf16* first_gemm, bf16* d_first_gemm,
                      const Sizes& sizes, cudaStream_t stream);

/// The same of contract fused_fp32, where nothing is rounded between the product and what is stored, and the
/// weight of a row comes after the product (harness/NUMERICS.md has the formulas and the sum's order).
struct SwigluGradFp32 {
  const float* products;               // [S, I]: d_out times down_proj
  const bf16* first_gemm;              // [S, 2I]
  const bf16* topk_weights;            // [T, K]
  const std::int32_t* gather_indices;  // [S]
  bf16* d_first_gemm;                  // [S, 2I]
  bf16* weighted;                      // [S, I]: rb(weight * activation), or null
  bf16* d_topk_weights;                // [T, K]
  bool quick;                          // on sm_90: the same to the last bit by the quick form of silu
};
void swiglu_grad_fp32(const SwigluGradFp32& grad, const Sizes& sizes, cudaStream_t stream);

/// How many arguments get another silu, or sigmoid, from one of the quick forms (swiglu.cuh) than from the
/// exact one, of all bf16 and all fp32 ones: 0 on sm_90. Synchronises.
std::int64_t count_silu_differences();

/// Reads `buffer` (several times the L2, all bytes equal) so that nothing else stays cached; for timing.
void flush_l2(char* buffer, std::int64_t bytes, cudaStream_t stream);

/// out[t] = rb(sum over j of weight * value in fp32), in torch's order: sums of j = 0, 4, ...; 1, 5, ...; 2,
/// 6, ...; 3, 7, ..., then these four in order. Under Hf each product is rounded to bf16 first.
/// values [S, H] in slot order, or in expert order with `row_of_slot` given.
void merge(const bf16* values, const std::int32_t* row_of_slot, const bf16* topk_weights, bf16* out,
           Rounding rounding, const Sizes& sizes, cudaStream_t stream);

/// The same to the last bit on sm_90; for many tokens the copy engine brings the rows (merge_sm90.cu).
void merge_sm90(const bf16* values, const std::int32_t* row_of_slot, const bf16* topk_weights, bf16* out,
                Rounding rounding, const Sizes& sizes, cudaStream_t stream);

/// The merge's gradient of the rows, d_second_gemm: d_rows[r] = rb(d_out[t] w[s]), s = gather_indices[r], t =
/// s / K. d_out [T, H], topk_weights [T, K], d_rows [S, H] in expert order.
void merge_grad_rows(const bf16* d_out, const bf16* topk_weights, const std::int32_t* gather_indices,
                     bf16* d_rows, const Sizes& sizes, cudaStream_t stream);

/// The merge's gradient of the weights, d_topk_weights[t, j] = rb(sum over H of d_out[t] value of slot j),
/// fp32 sums in torch's order (row_sum.cuh). Under Hf each product is rounded to bf16 first. `values` as in
/// merge.
void merge_grad_weights(const bf16* d_out, const bf16* values, const std::int32_t* row_of_slot,
                        bf16* d_topk_weights, Rounding rounding, const Sizes& sizes, cudaStream_t stream);

/// Both gradients of the merge in one pass, bit for bit those of the two above: d_out and `values` are read
/// once. A token's rows are found by row_of_slot [S]; `values` are in expert order, or in slot order with
/// `slot_order`.
void merge_grad(const bf16* d_out, const bf16* values, bool slot_order, const std::int32_t* row_of_slot,
                const bf16* topk_weights, bf16* d_rows, bf16* d_topk_weights, Rounding rounding,
                const Sizes& sizes, cudaStream_t stream);

/// d_router_logits [T, E] through renormalisation and softmax, from d_topk_weights [T, K] and what the
/// forward pass read and chose (topk.cu has the formula). `padded` [T, padded_experts(E)] gets the same with
/// zeros behind the last expert, or is null.
void softmax_topk_grad(const bf16* logits, const std::int32_t* selected_experts, const bf16* d_topk_weights,
                       bf16* d_logits, bf16* padded, const Sizes& sizes, cudaStream_t stream);

/// d_experts_hidden_states[t]: the sum of the token's rows, [S, H] in expert order. Under Hf K bf16 adds in
/// ascending expert order, from 0; else fp32 sums in merge's order, rounded once.
void combine(const bf16* rows, const std::int32_t* row_of_slot, bf16* out, Rounding rounding,
             const Sizes& sizes, cudaStream_t stream);

/// d_input_hidden_states = rb(experts + router), all [T, H].
void add_router_part(const bf16* experts, const bf16* router, bf16* out, const Sizes& sizes,
                     cudaStream_t stream);

}  // namespace assay::gpu
