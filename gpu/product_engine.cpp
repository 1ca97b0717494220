#include "gpu/product_engine.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "gpu/buffer.h"
#include "gpu/device_problem.h"
#include "gpu/engine_kernels.h"
#include "gpu/host_link.h"
#include "gpu/pipeline.h"

namespace assay {
namespace gpu {
namespace {

static_assert(sizeof(DeviceInterval) == sizeof(Interval) && offsetof(DeviceInterval, noise) == offsetof(Interval, noise));
static_assert(sizeof(DevicePrediction) == sizeof(PredictedValue) && offsetof(DevicePrediction, undetermined) == offsetof(PredictedValue, undetermined));

/// Experts' matrices that stay on the device as long as their host memory stays as it is: the owner is held.
class WeightCache {
 public:
  WeightCache() {
    std::size_t free = 0, total = 0;
    ASSAY_CUDA(cudaMemGetInfo(&free, &total));
    budget_ = free / 4;
  }

  /// Matrices of the groups that have rows, loaded side by side; null for the others. Good until the next call.
  template <class Value>
  std::vector<const bf16*> load(const GroupedProduct<Value>& product) {
    borrowed_.clear();
    const auto groups = static_cast<std::int64_t>(product.offsets.size()) - 1;
    std::vector<const bf16*> pointers(static_cast<std::size_t>(groups), nullptr);
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto group = static_cast<std::size_t>(g);
      if (product.offsets[group] == product.offsets[group + 1]) continue;
      try {
        const ExpertMatrix matrix = product.weights(g);
        ASSAY_CHECK(static_cast<std::int64_t>(matrix.values.size()) == product.n * product.k, "expected a matrix of n rows and k columns");
        pointers[group] = place(matrix);
      } catch (...) {
#pragma omp critical
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return pointers;
  }

 private:
  struct Entry {
    std::shared_ptr<const void> owner;
    Buffer<bf16> values;
  };

  const bf16* place(const ExpertMatrix& matrix) {
    const std::scoped_lock lock(mutex_);
    const auto found = held_.find(matrix.values.data());
    if (found != held_.end()) return found->second.values.data();
    Buffer<bf16> values("weights", static_cast<std::int64_t>(matrix.values.size()));
    values.upload(matrix.values.data(), 0, values.size());
    const bf16* const at = values.data();
    // What nobody owns may change behind the pointer; what is over the budget is loaded again.
    if (matrix.owner == nullptr || bytes_ + values.bytes() > budget_) {
      borrowed_.push_back(std::move(values));
      return at;
    }
    bytes_ += values.bytes();
    held_.emplace(matrix.values.data(), Entry{matrix.owner, std::move(values)});
    return at;
  }

  std::mutex mutex_;
  std::map<const Bf16*, Entry> held_;
  std::vector<Buffer<bf16>> borrowed_;
  std::size_t bytes_ = 0, budget_ = 0;
};

template <class T>
Buffer<T> uploaded(const char* name, const std::vector<T>& values) {
  Buffer<T> buffer(name, static_cast<std::int64_t>(values.size()));
  buffer.upload(values.data(), 0, buffer.size());
  return buffer;
}

template <class Value>
std::vector<ProductTile> tiles_of(const GroupedProduct<Value>& product, std::int64_t rows_of_tile) {
  std::vector<ProductTile> tiles;
  for (std::size_t g = 0; g + 1 < product.offsets.size(); ++g)
    for (std::int64_t first = product.offsets[g]; first < product.offsets[g + 1]; first += rows_of_tile)
      tiles.push_back({static_cast<std::int32_t>(g), static_cast<std::int32_t>(first),
                       static_cast<std::int32_t>(std::min(rows_of_tile, product.offsets[g + 1] - first))});
  return tiles;
}

/// Sizes the kernels index with: rows fit an int32, row tiles a grid, every source row exists.
template <class Value>
bool fits(const GroupedProduct<Value>& product) {
  if (product.k <= 0 || product.n <= 0 || product.source.empty() || product.left.size() % static_cast<std::size_t>(product.k) != 0) return false;
  const auto left_rows = static_cast<std::int64_t>(product.left.size()) / product.k;
  const auto rows = static_cast<std::int64_t>(product.source.size());
  return rows < (std::int64_t{1} << 20) && product.offsets.back() == rows && product.offsets.front() == 0 &&
         std::ranges::all_of(product.source, [&](std::int32_t s) { return s >= 0 && s < left_rows; });
}

class Engine {
 public:
  explicit Engine(int fraction_bits) : fraction_bits_(fraction_bits) {}

  bool bounded(const GroupedProduct<Interval>& product, std::span<Interval> out) {
    if (!fits(product) || product.unit_roundoff != kFp32UnitRoundoff) return false;
    const std::scoped_lock lock(mutex_);
    const auto count = static_cast<std::int64_t>(product.left.size());
    const BoundedConstants constants(product.k);
    const Buffer<double> ref("left operand", count);
    const Buffer<float> spread("left bounds", count), squares("left variances", count);
    const BoundedLeft prepared{ref.data(), spread.data(), squares.data()};
    {
      const Buffer<DeviceInterval> left("left intervals", count);
      ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
      link_.upload(left.data(), product.left.data(), left.bytes(), stream_);
      prepare_bounded(left.data(), count, constants, prepared, stream_);
      ASSAY_CUDA(cudaStreamSynchronize(stream_));
    }
    const Buffer<DeviceInterval> result("bounded product", static_cast<std::int64_t>(out.size()));
    with_shape(product, kBoundedTileRows, [&](const ProductShape& shape) { bounded_product(shape, prepared, constants, result.data(), stream_); });
    link_.download(out.data(), result.data(), result.bytes(), stream_);
    result.verify_guards();
    return true;
  }

  bool predicted(const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out) {
    PartEnds parts{};
    if (!fits(product) || !parts_of(product.accumulator, product.k, parts)) return false;
    const std::scoped_lock lock(mutex_);
    const auto count = static_cast<std::int64_t>(product.left.size());
    const Buffer<DevicePrediction> left("left predictions", count);
    const Buffer<std::uint32_t> words("left words", count);
    const Buffer<std::int32_t> outside("rows outside", count / product.k), not_bf16("left needs more than bf16", 1);
    const PredictedLeft prepared{words.data(), outside.data(), not_bf16.data()};
    ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
    link_.upload(left.data(), product.left.data(), left.bytes(), stream_);
    prepare_predicted(left.data(), count / product.k, product.k, prepared, stream_);
    std::int32_t wide = 1;
    ASSAY_CUDA(cudaMemcpyAsync(&wide, not_bf16.data(), sizeof wide, cudaMemcpyDeviceToHost, stream_));
    ASSAY_CUDA(cudaStreamSynchronize(stream_));
    if (wide != 0) return false;
    const Buffer<DevicePrediction> result("predicted product", static_cast<std::int64_t>(out.size()));
    with_shape(product, kPredictedTileRows, [&](const ProductShape& shape) {
      predicted_product(shape, left.data(), prepared, parts, fraction_bits_, result.data(), stream_);
    });
    link_.download(out.data(), result.data(), result.bytes(), stream_);
    result.verify_guards();
    return true;
  }

 private:
  template <class Value, class Launch>
  void with_shape(const GroupedProduct<Value>& product, int rows_of_tile, Launch launch) {
    const auto tiles = uploaded("product tiles", tiles_of(product, rows_of_tile));
    const auto source = uploaded("source rows", std::vector<std::int32_t>(product.source.begin(), product.source.end()));
    const auto weights = uploaded("weight pointers", weights_.load(product));
    ASSAY_CUDA(cudaDeviceSynchronize());  // uploads and poison are on the default stream
    launch(ProductShape{tiles.data(), tiles.size(), source.data(), weights.data(), product.k, product.n});
    ASSAY_CUDA(cudaStreamSynchronize(stream_));
  }

  /// `hopper` and its splits at multiples of a step; the last part takes what is left. False for anything else.
  static bool parts_of(const Accumulator& accumulator, std::int64_t k, PartEnds& parts) {
    constexpr std::int64_t kStep = 16;
    const bool any_split = accumulator == Accumulator{AccumulatorKind::HopperAnySplit, {}};
    if (!any_split && accumulator != Accumulator{AccumulatorKind::Hopper, accumulator.splits}) return false;
    const std::int64_t steps = (k + kStep - 1) / kStep;
    std::int64_t end = 0;
    for (std::size_t i = 0; i + 1 < accumulator.splits.size(); ++i) {
      if (accumulator.splits[i] % kStep != 0) return false;
      end += accumulator.splits[i] / kStep;
      if (end >= steps) break;
      if (parts.count == kMostParts - 1) return false;
      parts.step[parts.count++] = static_cast<std::int32_t>(end);
    }
    parts.step[parts.count++] = static_cast<std::int32_t>(steps);
    return true;
  }

  int fraction_bits_;
  std::mutex mutex_;
  Stream stream_;
  HostLink link_;
  WeightCache weights_;
};

}  // namespace
}  // namespace gpu

std::optional<ProductEngine> gpu_product_engine(std::int64_t least_multiply_adds, int fraction_bits) {
  if (gpu_unavailable()) return std::nullopt;
  cudaDeviceProp device{};
  ASSAY_CUDA(cudaGetDeviceProperties(&device, 0));
  // Made when the first product comes: a context costs time and memory.
  const auto engine = std::make_shared<std::unique_ptr<gpu::Engine>>();
  const auto ready = [engine, fraction_bits]() -> gpu::Engine& {
    if (!*engine) *engine = std::make_unique<gpu::Engine>(fraction_bits);
    return **engine;
  };
  return ProductEngine{std::string("gpu: ") + device.name, least_multiply_adds,
                       [ready](const GroupedProduct<Interval>& product, std::span<Interval> out) { return ready().bounded(product, out); },
                       [ready](const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out) { return ready().predicted(product, out); }};
}

}  // namespace assay
