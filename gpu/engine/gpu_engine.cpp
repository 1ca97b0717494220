#include "gpu/engine/gpu_engine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "gpu/buffer.h"
#include "gpu/device_problem.h"
#include "gpu/engine/cell_kernels.h"
#include "gpu/engine/engine_kernels.h"
#include "gpu/host_link.h"
#include "gpu/pipeline.h"
#include "gpu/weight_cache.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/product_bound.h"
#include "harness/contract/summation.h"

namespace assay {
namespace gpu {
namespace {

static_assert(sizeof(DevicePrediction) == sizeof(PredictedValue) &&
              offsetof(DevicePrediction, undetermined) == offsetof(PredictedValue, undetermined));
static_assert(sizeof(DeviceInterval) == sizeof(Interval) &&
              offsetof(DeviceInterval, noise) == offsetof(Interval, noise));
static_assert(sizeof(DeviceCell) == sizeof(Cell) &&
              offsetof(DeviceCell, flips_expected) == offsetof(Cell, sums) &&
              sizeof(DeviceClass) == sizeof(ClassSums));
static_assert(kDeviceCellColumns == kCellColumns && kDeviceTaskRows == kTaskRows);

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
  if (product.k <= 0 || product.n <= 0 || product.source.empty() ||
      product.left.size() % static_cast<std::size_t>(product.k) != 0)
    return false;
  const auto left_rows = static_cast<std::int64_t>(product.left.size()) / product.k;
  const auto rows = static_cast<std::int64_t>(product.source.size());
  return rows < (std::int64_t{1} << 20) && product.offsets.back() == rows && product.offsets.front() == 0 &&
         std::ranges::all_of(product.source, [&](std::int32_t s) { return s >= 0 && s < left_rows; });
}

/// Partial sums one after the other, in whole steps of 16 products; false for any other order.
bool parts_of(const Summation& order, std::int64_t k, PartEnds& parts) {
  if (order.rule != StepRule::Truncate16) return false;
  std::int64_t end = 0;
  for (const auto& stretch : order.stretches) {
    const bool last = stretch.end == k;
    if (stretch.begin != end || !stretch.closes || parts.count == kMostParts ||
        (!last && stretch.end % kStepProducts != 0))
      return false;
    end = stretch.end;
    parts.step[parts.count++] = static_cast<std::int32_t>((end + kStepProducts - 1) / kStepProducts);
  }
  return end == k && parts.count > 0;
}

/// A value that a bf16 holds whole: neither open nor with an error.
std::optional<Bf16> whole(const PredictedValue& x) {
  const auto bits = std::bit_cast<std::uint32_t>(x.value);
  if (x.undetermined || (bits & 0xffff) != 0) return std::nullopt;
  return Bf16{static_cast<std::uint16_t>(bits >> 16)};
}
std::optional<Bf16> whole(const Interval& x) {
  const Bf16 rounded = round_to_bf16(x.ref);
  if (x.low != x.ref || x.high != x.ref || x.noise > 0.0f || to_float(rounded) != x.ref) return std::nullopt;
  return rounded;
}

/// A product whose right operand is a matrix of values, with that matrix as weights; nothing where one of
/// them is no bf16.
template <class Value>
std::optional<GroupedProduct<Value>> with_weights(const GroupedProduct<Value>& product) {
  const auto matrix = std::make_shared<std::vector<Bf16>>();
  matrix->reserve(product.right.size());
  for (const Value& x : product.right) {
    const auto value = whole(x);
    if (!value) return std::nullopt;
    matrix->push_back(*value);
  }
  GroupedProduct<Value> of_weights = product;
  of_weights.weights = [matrix](std::int64_t) { return ExpertMatrix{*matrix, nullptr}; };
  return of_weights;
}

/// The left operand of a bounded product as the kernel reads it, and what the bounds need to know of its
/// rows.
struct LeftTerms {
  LargeVector<BoundedTerm> terms;   // [left_rows, k]
  std::vector<double> granularity;  // [left_rows]: 0 where the row is not exact
  std::vector<std::uint8_t> exact;  // [left_rows]: no operand has a width
  BoundShape shape;

  explicit LeftTerms(const GroupedProduct<Interval>& product) : terms(product.left.size()) {
    const std::int64_t k = product.k;
    const std::int64_t rows = static_cast<std::int64_t>(product.left.size()) / k;
    granularity.resize(static_cast<std::size_t>(rows));
    exact.resize(granularity.size());
    std::int64_t exact_rows = 0;
#pragma omp parallel for schedule(static) reduction(+ : exact_rows)
    for (std::int64_t r = 0; r < rows; ++r) {
      double least = std::numeric_limits<double>::infinity();
      bool exact_row = true;
      for (const Interval& x :
           product.left.subspan(static_cast<std::size_t>(r * k), static_cast<std::size_t>(k))) {
        exact_row = exact_row && x.low == x.ref && x.ref == x.high;
        least = std::min(least, assay::granularity(x.ref));
      }
      granularity[static_cast<std::size_t>(r)] = exact_row && !product.a_priori_only ? least : 0.0;
      exact[static_cast<std::size_t>(r)] = exact_row;
      exact_rows += exact_row;
    }
    shape =
        bound_shape(k, product.unit_roundoff, product.accumulator, exact_rows > 0 && !product.a_priori_only);
#pragma omp parallel for schedule(static)
    for (std::size_t i = 0; i < terms.size(); ++i)
      terms[i] = {product.left[i].ref, spread_of(shape, product.left[i]), squares_of(shape, product.left[i])};
  }
};

class DeviceEngine {
 public:
  explicit DeviceEngine(int fraction_bits) : fraction_bits_(fraction_bits) {}

  bool bounded(const GroupedProduct<Interval>& product, std::span<Interval> out) {
    if (!product.weights) {
      const auto of_weights = with_weights(product);
      return of_weights && bounded(*of_weights, out);
    }
    if (!fits(product)) return false;
    const LeftTerms left(product);
    PartEnds parts{};
    const Summation any_order{StepRule::Truncate16, {{0, product.k, true}}};
    if (!parts_of(left.shape.running ? summation(product.accumulator, product.k) : any_order, product.k,
                  parts))
      return false;
    const std::scoped_lock lock(mutex_);
    const Buffer<BoundedTerm> terms("left terms", static_cast<std::int64_t>(left.terms.size()));
    const Buffer<DeviceSums> sums("bounded sums", static_cast<std::int64_t>(out.size()));
    ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
    link_.upload(terms.data(), left.terms.data(), terms.bytes(), stream_);
    const auto matrices = with_operands(product, kBoundedTileRows, [&](const DeviceOperands& operands) {
      bounded_product(operands, terms.data(), parts, left.shape.running,
                      static_cast<float>(1.0 / left.shape.c), sums.data(), stream_);
    });
    std::vector<const double*> columns_of_row;  // granularity of the columns, by row
    for (std::size_t g = 0; g + 1 < product.offsets.size(); ++g)
      columns_of_row.resize(static_cast<std::size_t>(product.offsets[g + 1]),
                            matrices[g] ? matrices[g]->granularity.data() : nullptr);
    link_.receive(sums.data(), sums.bytes(), sizeof(DeviceSums), stream_,
                  [&](std::size_t at, const unsigned char* bytes, std::size_t count) {
                    const auto* from = reinterpret_cast<const DeviceSums*>(bytes);
                    const std::size_t first = at / sizeof(DeviceSums);
                    const std::size_t elements = count / sizeof(DeviceSums);
                    const std::size_t n = static_cast<std::size_t>(product.n);
#pragma omp parallel for schedule(static)
                    for (std::size_t i = 0; i < elements; ++i) {
                      const std::size_t row = (first + i) / n;
                      const std::size_t column = (first + i) % n;
                      const auto source = static_cast<std::size_t>(product.source[row]);
                      // The running bound is about exact operands: a row with a width has none.
                      const float running =
                          left.exact[source] != 0 ? from[i].running : std::numeric_limits<float>::infinity();
                      const ProductSums element{from[i].ref, from[i].spread, from[i].squares, running};
                      const double of_row = left.granularity[source];
                      const bool exact = of_row > 0.0 && exact_in_any_order(left.shape, element, of_row,
                                                                            columns_of_row[row][column]);
                      out[first + i] = product_interval(left.shape, element, exact);
                    }
                  });
    sums.verify_guards();
    return true;
  }

  bool predicted(const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out) {
    if (!product.weights) {
      const auto of_weights = with_weights(product);
      return of_weights && predicted(*of_weights, out);
    }
    PartEnds parts{};
    if (!fits(product) || !parts_of(summation(product.accumulator, product.k), product.k, parts))
      return false;
    const std::scoped_lock lock(mutex_);
    const auto count = static_cast<std::int64_t>(product.left.size());
    const Buffer<DevicePrediction> left("left predictions", count);
    const Buffer<std::uint32_t> words("left words", count);
    const Buffer<std::int32_t> outside("rows outside", count / product.k),
        not_bf16("left needs more than bf16", 1);
    const PredictedLeft prepared{words.data(), outside.data(), not_bf16.data()};
    ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
    link_.upload(left.data(), product.left.data(), left.bytes(), stream_);
    prepare_predicted(left.data(), count / product.k, product.k, prepared, stream_);
    std::int32_t wide = 1;
    ASSAY_CUDA(cudaMemcpyAsync(&wide, not_bf16.data(), sizeof wide, cudaMemcpyDeviceToHost, stream_));
    ASSAY_CUDA(cudaStreamSynchronize(stream_));
    if (wide != 0) return false;
    const Buffer<DevicePrediction> result("predicted product", static_cast<std::int64_t>(out.size()));
    with_operands(product, kPredictedTileRows, [&](const DeviceOperands& operands) {
      predicted_product(operands, left.data(), prepared, parts, fraction_bits_, result.data(), stream_);
    });
    link_.download(out.data(), result.data(), result.bytes(), stream_);
    result.verify_guards();
    return true;
  }

  bool cells(const FieldRows& field, FieldCells& out) {
    if (field.tasks() > kMostTasks || field.out.bf16() == nullptr) return false;
    const auto elements = static_cast<std::int64_t>(field.out.size());
    const auto argument_count = static_cast<std::int64_t>(field.classes.size());
    const std::scoped_lock lock(mutex_);
    const Buffer<std::uint16_t> values("values", elements), arguments("classes", argument_count);
    const Buffer<DeviceInterval> intervals("intervals", elements);
    const Buffer<DeviceCell> cells("cells", static_cast<std::int64_t>(out.cells.size()));
    const Buffer<double> columns("column sums", static_cast<std::int64_t>(out.column_flips_expected.size()));
    const Buffer<DeviceClass> classes("class sums", static_cast<std::int64_t>(out.classes.size()));
    ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
    ASSAY_CUDA(cudaMemsetAsync(classes.data(), 0, classes.bytes(), stream_));
    link_.upload(values.data(), field.out.bf16(), values.bytes(), stream_);
    link_.upload(intervals.data(), field.reference.data(), intervals.bytes(), stream_);
    link_.upload(arguments.data(), field.classes.data(), arguments.bytes(), stream_);
    field_cells({values.data(), intervals.data(), field.rows, field.width, field.carried, arguments.data(),
                 field.class_stride},
                cells.data(), columns.data(), out.classes.empty() ? nullptr : classes.data(), stream_);
    link_.download(out.cells.data(), cells.data(), cells.bytes(), stream_);
    link_.download(out.column_flips_expected.data(), columns.data(), columns.bytes(), stream_);
    link_.download(out.classes.data(), classes.data(), classes.bytes(), stream_);
    cells.verify_guards();
    columns.verify_guards();
    classes.verify_guards();
    return true;
  }

 private:
  /// Runs `launch` on the product's rows and matrices; returns the matrices, one per group, null where a
  /// group has no rows.
  template <class Value, class Launch>
  std::vector<std::shared_ptr<const DeviceMatrix>> with_operands(const GroupedProduct<Value>& product,
                                                                 int rows_of_tile, Launch launch) {
    const auto matrices = load(product);
    std::vector<const bf16*> pointers;
    for (const auto& matrix : matrices) pointers.push_back(matrix ? matrix->values.data() : nullptr);
    const auto tiles = uploaded("product tiles", tiles_of(product, rows_of_tile));
    const auto source =
        uploaded("source rows", std::vector<std::int32_t>(product.source.begin(), product.source.end()));
    const auto weights = uploaded("weight pointers", pointers);
    ASSAY_CUDA(cudaDeviceSynchronize());  // uploads and poison are on the default stream
    launch(DeviceOperands{tiles.data(), tiles.size(), source.data(), weights.data(), product.k, product.n});
    ASSAY_CUDA(cudaStreamSynchronize(stream_));
    return matrices;
  }

  // Loading may mean generating: experts are loaded side by side.
  template <class Value>
  std::vector<std::shared_ptr<const DeviceMatrix>> load(const GroupedProduct<Value>& product) {
    const auto groups = static_cast<std::int64_t>(product.offsets.size()) - 1;
    std::vector<std::shared_ptr<const DeviceMatrix>> matrices(static_cast<std::size_t>(groups));
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto group = static_cast<std::size_t>(g);
      if (product.offsets[group] == product.offsets[group + 1]) continue;
      try {
        matrices[group] = weights_.place(product.weights(g), product.n, product.k, product.right_lies);
      } catch (...) {
#pragma omp critical
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return matrices;
  }

  int fraction_bits_;
  std::mutex mutex_;
  Stream stream_;
  HostLink link_;
  WeightCache weights_;
};

}  // namespace
}  // namespace gpu

std::optional<Engine> gpu_engine(const LeastWork& least, int fraction_bits) {
  if (gpu_unavailable()) return std::nullopt;
  cudaDeviceProp device{};
  ASSAY_CUDA(cudaGetDeviceProperties(&device, 0));
  // Made when the first work comes: a context costs time and memory.
  const auto engine = std::make_shared<std::unique_ptr<gpu::DeviceEngine>>();
  const auto ready = [engine, fraction_bits]() -> gpu::DeviceEngine& {
    if (!*engine) *engine = std::make_unique<gpu::DeviceEngine>(fraction_bits);
    return **engine;
  };
  return Engine{std::string("gpu: ") + device.name,
                least.multiply_adds,
                [ready](const GroupedProduct<Interval>& product, std::span<Interval> out) {
                  return ready().bounded(product, out);
                },
                [ready](const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out) {
                  return ready().predicted(product, out);
                },
                least.elements,
                [ready](const FieldRows& field, FieldCells& out) { return ready().cells(field, out); }};
}

}  // namespace assay
