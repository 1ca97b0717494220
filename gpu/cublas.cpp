#include "gpu/cublas.h"

#include <dlfcn.h>

#include <cublas_api.h>

#include "harness/contract/error.h"

namespace assay::gpu {

struct Cublas::Api {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSetMathMode) set_math_mode = nullptr;
  // Spelled out: the header overloads these two names.
  using Gemm = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                                  const void*, const void*, cudaDataType, int, const void*, cudaDataType, int,
                                  const void*, void*, cudaDataType, int, cublasComputeType_t,
                                  cublasGemmAlgo_t);
  using GemmBatched = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                                         const void*, const void*, cudaDataType, int, long long, const void*,
                                         cudaDataType, int, long long, const void*, void*, cudaDataType, int,
                                         long long, int, cublasComputeType_t, cublasGemmAlgo_t);
  Gemm gemm = nullptr;
  GemmBatched gemm_batched = nullptr;
  decltype(&cublasGemmGroupedBatchedEx) gemm_grouped = nullptr;
  decltype(&cublasGetVersion_v2) get_version = nullptr;
  decltype(&cublasGetStatusString) status_string = nullptr;
};

namespace {

#define ASSAY_STRING_OF(x) #x
#define ASSAY_STRING(x) ASSAY_STRING_OF(x)
constexpr const char* kLibrary = "libcublas.so." ASSAY_STRING(CUBLAS_VER_MAJOR);

void* open_library() {
  // The dynamic linker's own search first, then the toolkit this was built with.
  if (void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL)) return library;
  const std::string first_error = dlerror();
  const std::string toolkit = std::string(ASSAY_CUDA_LIBRARIES) + "/" + kLibrary;
  if (void* library = dlopen(toolkit.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  throw InputError(std::string("expected to load ") + kLibrary + ", found: " + first_error + "; and " +
                   dlerror());
}

template <class Function>
void load(void* library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, symbol));
  if (function == nullptr)
    throw InputError(std::string("expected ") + kLibrary + " to have " + symbol + ", found none");
}

}  // namespace

Cublas::Cublas(cudaStream_t stream)
    : api_([]() -> const Api& {
        static const Api loaded = [] {
          Api api;
          void* library = open_library();  // stays open: cuBLAS keeps process-wide state
          load(library, "cublasCreate_v2", api.create);
          load(library, "cublasDestroy_v2", api.destroy);
          load(library, "cublasSetStream_v2", api.set_stream);
          load(library, "cublasSetMathMode", api.set_math_mode);
          load(library, "cublasGemmEx", api.gemm);
          load(library, "cublasGemmStridedBatchedEx", api.gemm_batched);
          load(library, "cublasGemmGroupedBatchedEx", api.gemm_grouped);
          load(library, "cublasGetVersion_v2", api.get_version);
          load(library, "cublasGetStatusString", api.status_string);
          return api;
        }();
        return loaded;
      }()),
      stream_(stream) {
  cublasHandle_t handle = nullptr;
  const auto require = [&](cublasStatus_t status, const char* call) {
    if (status != CUBLAS_STATUS_SUCCESS)
      throw InputError(std::string("expected ") + call + " to succeed, found " + api_.status_string(status));
  };
  require(api_.create(&handle), "cublasCreate");
  handle_ = handle;
  require(api_.set_stream(handle, stream), "cublasSetStream");
  require(
      api_.set_math_mode(handle, static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                                           CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
      "cublasSetMathMode");
}

Cublas::~Cublas() { api_.destroy(static_cast<cublasHandle_t>(handle_)); }

void Cublas::product(const Operand& a, const Operand& b, bf16* out, std::int64_t m, std::int64_t n,
                     std::int64_t k) {
  multiply(a, b, out, false, m, n, k);
}

void Cublas::product(const Operand& a, const Operand& b, float* out, std::int64_t m, std::int64_t n,
                     std::int64_t k) {
  multiply(a, b, out, true, m, n, k);
}

void Cublas::multiply(const Operand& a, const Operand& b, void* out, bool fp32, std::int64_t m,
                      std::int64_t n, std::int64_t k) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    ASSAY_CUDA(cudaMemsetAsync(
        out, 0, static_cast<std::size_t>(m * n) * (fp32 ? sizeof(float) : sizeof(bf16)), stream_));
    return;
  }
  const float one = 1.0f;
  const float zero = 0.0f;
  // Row-major out = a b^T is column-major out^T = b a^T. What is row-major [x, k] is column-major [k, x]
  // there.
  const bool a_along_rows = a.lies == Lies::AlongRows;
  const bool b_along_rows = b.lies == Lies::AlongRows;
  const auto status = api_.gemm(
      static_cast<cublasHandle_t>(handle_), b_along_rows ? CUBLAS_OP_N : CUBLAS_OP_T,
      a_along_rows ? CUBLAS_OP_T : CUBLAS_OP_N, static_cast<int>(n), static_cast<int>(m), static_cast<int>(k),
      &one, b.values, CUDA_R_16BF, static_cast<int>(b_along_rows ? n : k), a.values, CUDA_R_16BF,
      static_cast<int>(a_along_rows ? m : k), &zero, out, fp32 ? CUDA_R_32F : CUDA_R_16BF,
      static_cast<int>(n), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  if (status != CUBLAS_STATUS_SUCCESS)
    throw InputError(std::string("expected cublasGemmEx to succeed, found ") + api_.status_string(status));
}

void Cublas::batched_product(const Operand& a, const Operand& b, bf16* out, std::int64_t m, std::int64_t n,
                             std::int64_t k, std::int64_t count) {
  const float one = 1.0f;
  const float zero = 0.0f;
  const bool a_along_rows = a.lies == Lies::AlongRows;
  const bool b_along_rows = b.lies == Lies::AlongRows;
  const auto status = api_.gemm_batched(
      static_cast<cublasHandle_t>(handle_), b_along_rows ? CUBLAS_OP_N : CUBLAS_OP_T,
      a_along_rows ? CUBLAS_OP_T : CUBLAS_OP_N, static_cast<int>(n), static_cast<int>(m), static_cast<int>(k),
      &one, b.values, CUDA_R_16BF, static_cast<int>(b_along_rows ? n : k), n * k, a.values, CUDA_R_16BF,
      static_cast<int>(a_along_rows ? m : k), m * k, &zero, out, CUDA_R_16BF, static_cast<int>(n), m * n,
      static_cast<int>(count), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  if (status != CUBLAS_STATUS_SUCCESS)
    throw InputError(std::string("expected cublasGemmStridedBatchedEx to succeed, found ") +
                     api_.status_string(status));
}

GroupedOperands grouped_operands(const bf16* a, const bf16* b, bf16* out,
                                 const std::vector<std::int32_t>& counts, std::int64_t n, std::int64_t k) {
  GroupedOperands operands;
  std::vector<const bf16*> from;
  std::vector<const bf16*> weights;
  std::vector<bf16*> to;
  std::int64_t row = 0;
  for (std::size_t expert = 0; expert < counts.size(); row += counts[expert], ++expert) {
    if (counts[expert] == 0) continue;
    operands.rows.push_back(counts[expert]);
    from.push_back(a + row * k);
    weights.push_back(b + static_cast<std::int64_t>(expert) * n * k);
    to.push_back(out + row * n);
  }
  const auto groups = static_cast<std::int64_t>(operands.rows.size());
  operands.a = Buffer<const bf16*>("grouped a", groups);
  operands.b = Buffer<const bf16*>("grouped b", groups);
  operands.out = Buffer<bf16*>("grouped out", groups);
  operands.a.upload(from.data(), 0, groups);
  operands.b.upload(weights.data(), 0, groups);
  operands.out.upload(to.data(), 0, groups);
  return operands;
}

void Cublas::grouped_product(const GroupedOperands& operands, std::int64_t n, std::int64_t k) {
  const std::size_t groups = operands.rows.size();
  if (groups == 0) return;
  const std::vector<cublasOperation_t> transposed(groups, CUBLAS_OP_T);
  const std::vector<cublasOperation_t> plain(groups, CUBLAS_OP_N);
  const std::vector<int> columns(groups, static_cast<int>(n));
  const std::vector<int> depth(groups, static_cast<int>(k));
  const std::vector<int> one_each(groups, 1);
  const std::vector<float> one(groups, 1.0f);
  const std::vector<float> zero(groups, 0.0f);
  const auto status = api_.gemm_grouped(
      static_cast<cublasHandle_t>(handle_), transposed.data(), plain.data(), columns.data(),
      operands.rows.data(), depth.data(), one.data(), reinterpret_cast<const void* const*>(operands.b.data()),
      CUDA_R_16BF, depth.data(), reinterpret_cast<const void* const*>(operands.a.data()), CUDA_R_16BF,
      depth.data(), zero.data(), reinterpret_cast<void* const*>(operands.out.data()), CUDA_R_16BF,
      columns.data(), static_cast<int>(groups), one_each.data(), CUBLAS_COMPUTE_32F);
  if (status != CUBLAS_STATUS_SUCCESS)
    throw InputError(std::string("expected cublasGemmGroupedBatchedEx to succeed, found ") +
                     api_.status_string(status));
}

std::string Cublas::version() const {
  int version = 0;
  api_.get_version(static_cast<cublasHandle_t>(handle_), &version);
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

}  // namespace assay::gpu
