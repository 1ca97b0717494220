#include "gpu/wgmma/tensor_map.h"

#include <cudaTypedefs.h>

#include "gpu/cuda_check.h"

namespace assay::gpu {
namespace {

PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    ASSAY_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                                &result));
    ASSAY_CHECK(result == cudaDriverEntryPointSuccess && function != nullptr,
                "expected a driver with cuTensorMapEncodeTiled (CUDA 12.0 or newer)");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return found;
}

}  // namespace

CUtensorMap tensor_map(const bf16* base, const MapAxis* axes, int rank) {
  std::array<cuuint64_t, 5> extents{};
  std::array<cuuint64_t, 5> strides{};  // in bytes, from the second axis on
  std::array<cuuint32_t, 5> box{};
  std::array<cuuint32_t, 5> steps{};
  for (int i = 0; i < rank; ++i) {
    const auto at = static_cast<std::size_t>(i);
    extents[at] = static_cast<cuuint64_t>(axes[i].extent);
    box[at] = static_cast<cuuint32_t>(axes[i].box);
    steps[at] = 1;
    if (i > 0) strides[at - 1] = static_cast<cuuint64_t>(axes[i].stride) * sizeof(bf16);
  }
  CUtensorMap map{};
  const CUresult result = encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank),
                                    const_cast<bf16*>(base), extents.data(), strides.data(), box.data(),
                                    steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw InputError("expected the driver to encode a tensor map, found error " +
                     std::to_string(static_cast<int>(result)));
  return map;
}

CUtensorMap matrix_map(const bf16* base, std::int64_t rows, std::int64_t columns, int box_rows) {
  const MapAxis axes[] = {{columns, 1, kBoxDepth}, {rows, columns, box_rows}};
  return tensor_map(base, axes, 2);
}

}  // namespace assay::gpu
