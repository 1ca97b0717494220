// How the gradients of weights are cut for Hopper: out[e] = d_out^T rows over the rows of expert e, d_out
// [S, height], rows [S, width] or gathered tokens, out [E, height, width]. A tile is 256 rows and 128 columns
// of one expert's matrix; on the tensor core it lies transposed (`rows` are wgmma's first operand), so that
// what is gathered is the smaller part. Both operands lie along their rows: a stage is 64 of the expert's
// rows, in panels of 64 columns.
#pragma once

#include "gpu/wgmma/wgmma_tiles.cuh"

namespace assay::gpu::wgmma {

inline constexpr int kGradHeight = 256;  // of a tile
inline constexpr int kGradWidth = 128;   // of a tile, 64 of each consumer
inline constexpr int kGradDepth = 64;
inline constexpr int kGradPanels = (kGradHeight + kGradWidth) / 64;
inline constexpr std::uint32_t kGradPanelBytes = kGradDepth * 128;
inline constexpr int kGradStageBytes = kGradPanels * static_cast<int>(kGradPanelBytes);

/// Gathered rows take longer to come: a stage more, and results leave in two passes instead of one.
template <bool kGather>
struct GradShape {
  static constexpr int kStages = kGather ? 4 : 3;
  static constexpr int kPassRows = kGradHeight / (kGather ? 2 : 1);
  static constexpr int kStagingBytes = kPassRows * 128;  // of one consumer: 64 columns of a pass
  static constexpr int kSharedBytes =
      kStages * kGradStageBytes + kConsumers * kStagingBytes + static_cast<int>(sizeof(Control)) + kAlignment;
  static_assert(kStages <= kMaxStages && kSharedBytes <= kBlockBytes);
};

struct WeightGradArguments {
  const std::int32_t* counts;          // [E]
  const std::int32_t* first_rows;      // [E]
  const std::int32_t* gather_indices;  // [S]
  TileCounter* counter;                // of this product
  const bf16* x;                       // [T, width], of gathered rows
  void* out;                           // [E, height, width], where what is there is read or written directly
  int experts;
  int height_tiles;
  int width_tiles;
  int height;
  int width;
  int top_k;
  int stages;
  bool width_first;      // tiles of neighbouring columns run side by side, else of neighbouring rows
  bool product_rounded;  // to bf16 before it is added or kept as float32
  bool beside_previous;  // as in DownDw
  bool whole_panels;  // neither matrix ends within 64 columns: a stage's panels of an operand come in one box
};

struct WeightGradMaps {
  CUtensorMap rows;   // ragged; of rows that are contiguous
  CUtensorMap d_out;  // ragged
  CUtensorMap out;    // [E, height, width] of bf16; float32 leaves without it
};

/// A ragged map reads rows of one expert, and zeros behind its last one whatever lies there: the gradient of
/// a weight must not see the next expert's rows. The copy engine compares a coordinate with a fixed extent
/// only, so that rows count up to that extent where the expert ends; a second coordinate adds the row behind
/// the expert's last, and the third one, whose stride has a multiple of 2^64 bytes added, takes the extent
/// away again.
inline constexpr int kRaggedExtent = 1 << 30;
__device__ inline void load_ragged(std::uint32_t shared, const CUtensorMap& map, std::uint32_t barrier,
                                   int column, int first, int rows, int row) {
  ptx::tensor_load_4d(shared, &map, barrier, column, kRaggedExtent - rows + row, first + rows, kRaggedExtent);
}

/// The same of neighbouring panels, as many as the map's box has, one behind the other: the panels are an
/// axis of their own.
__device__ inline void load_ragged_panels(std::uint32_t shared, const CUtensorMap& map, std::uint32_t barrier,
                                          int panel, int first, int rows, int row) {
  ptx::tensor_load_5d(shared, &map, barrier, 0, kRaggedExtent - rows + row, first + rows, kRaggedExtent,
                      panel);
}

/// Tile::column_tile of a tile of an expert's matrix, and back.
__device__ inline int width_tile(const Tile& tile, const WeightGradArguments& arguments) {
  return arguments.width_first ? tile.column_tile % arguments.width_tiles
                               : tile.column_tile / arguments.height_tiles;
}
__device__ inline int height_tile(const Tile& tile, const WeightGradArguments& arguments) {
  return arguments.width_first ? tile.column_tile / arguments.width_tiles
                               : tile.column_tile % arguments.height_tiles;
}

/// Steps of a tile's sum; none for an expert without rows, whose tiles are written all the same.
__device__ inline int grad_steps(const Tile& tile) { return (tile.rows + kGradDepth - 1) / kGradDepth; }

/// The expert's matrix in an output of these elements, from the row on.
template <class Element>
__device__ Element* row_of_out(const WeightGradArguments& arguments, const Tile& tile, int row) {
  return static_cast<Element*>(arguments.out) +
         (static_cast<std::int64_t>(tile.expert) * arguments.height + row) * arguments.width;
}

/// Behind the last tile.
__device__ inline bool is_end(const Tile& tile) { return tile.expert < 0; }

}  // namespace assay::gpu::wgmma
