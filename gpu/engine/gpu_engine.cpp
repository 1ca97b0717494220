#include "gpu/engine/gpu_engine.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "gpu/device_problem.h"
#include "gpu/engine/cell_kernels.h"
#include "gpu/engine/engine_kernels.h"
#include "gpu/engine/kept_memory.h"
#include "gpu/engine/operand_terms.h"
#include "gpu/host_link.h"
#include "gpu/pipeline.h"
#include "gpu/weight_cache.h"
#include "harness/contract/element_constants.h"
#include "harness/contract/product_intervals.h"

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

/// Sums of up to kElementsAtOnce neighbours of a row, as product_intervals takes them.
struct Neighbours {
  double ref[kElementsAtOnce];
  float spread[kElementsAtOnce];
  float squares[kElementsAtOnce];
  float running[kElementsAtOnce];
  bool exact[kElementsAtOnce];  // in any order
};

/// The intervals of the `count` elements from `first` on, of rows of n; gather(element, row, column, some,
/// to) gives the sums of `some` neighbours.
template <class Gather>
void make_intervals(const ElementConstants& constants, std::size_t n, std::size_t first, std::size_t count,
                    const Gather& gather, std::span<Interval> out) {
  constexpr std::size_t kAtOnce = 4096;  // of a thread, from one row into the next
#pragma omp parallel for schedule(static)
  for (std::size_t begin = first; begin < first + count; begin += kAtOnce) {
    const std::size_t end = std::min(begin + kAtOnce, first + count);
    for (std::size_t at = begin; at < end;) {
      const std::size_t row = at / n;
      const std::size_t column = at % n;
      const std::size_t some = std::min({std::size_t{kElementsAtOnce}, n - column, end - at});
      Neighbours sums;
      gather(at, row, column, some, sums);
      product_intervals(constants, {sums.ref, sums.spread, sums.squares, sums.running}, sums.exact,
                        static_cast<int>(some), out.data() + at);
      at += some;
    }
  }
}

constexpr float kNoRunningBound = std::numeric_limits<float>::infinity();

class DeviceEngine {
 public:
  DeviceEngine(int fraction_bits, std::shared_ptr<WeightCache> weights)
      : fraction_bits_(fraction_bits), weights_(std::move(weights)) {}

  bool bounded(const GroupedProduct<Interval>& product, std::span<Interval> out) {
    if (!fits(product)) return false;
    const auto values = product.weights ? std::nullopt : matrix_of_values(product);
    if (!product.weights && !values) return two_sided(product, out);
    const LeftTerms left(product);
    PartEnds parts{};
    const Summation any_order{StepRule::Truncate16, {{0, product.k, true}}};
    if (!parts_of(left.shape.running ? summation(product.accumulator, product.k) : any_order, product.k,
                  parts))
      return false;
    const std::scoped_lock lock(mutex_);
    const auto terms = uploaded<BoundedTerm>("left terms", left.terms);
    const auto sums = memory_.take<DeviceSums>("bounded sums", std::ssize(out), stream_);
    const auto matrices = values ? placed(product, *values) : placed(product);
    run(product, kBoundedTileRows, matrices, [&](const DeviceOperands& operands) {
      bounded_product(operands, terms.data(), parts, left.shape.running,
                      static_cast<float>(1.0 / left.shape.c), sums.data(), stream_);
    });
    std::vector<const double*> columns_of_row;  // granularity of the columns, by row
    for (std::size_t g = 0; g + 1 < product.offsets.size(); ++g)
      columns_of_row.resize(static_cast<std::size_t>(product.offsets[g + 1]), matrices[g].granularity);
    const ElementConstants constants(left.shape);
    const auto n = static_cast<std::size_t>(product.n);
    receive(sums, [&](std::size_t first, std::span<const DeviceSums> from) {
      const auto gather = [&](std::size_t at, std::size_t row, std::size_t column, std::size_t some,
                              Neighbours& to) {
        const DeviceSums* const of = from.data() + (at - first);
        const auto source = static_cast<std::size_t>(product.source[row]);
        // The running bound is about exact operands: a row with a width has none.
        const bool exact_row = left.rows.exact[source] != 0;
        const double of_row = left.rows.granularity[source];
        const double* const of_columns = columns_of_row[row] + column;
        for (std::size_t i = 0; i < some; ++i) {
          to.ref[i] = of[i].ref;
          to.spread[i] = of[i].spread;
          to.squares[i] = of[i].squares;
          to.running[i] = exact_row ? of[i].running : kNoRunningBound;
        }
        for (std::size_t i = 0; i < some; ++i)
          to.exact[i] = of_row > 0.0 && constants.exact_in_any_order(to.spread[i], of_row, of_columns[i]);
      };
      make_intervals(constants, n, first, from.size(), gather, out);
    });
    return true;
  }

  bool predicted(const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out) {
    PartEnds parts{};
    if (!fits(product) || !parts_of(summation(product.accumulator, product.k), product.k, parts))
      return false;
    const auto values = product.weights ? std::nullopt : matrix_of_values(product);
    if (!product.weights && !values) return false;
    const std::scoped_lock lock(mutex_);
    const auto rows = std::ssize(product.left) / product.k;
    const auto left = memory_.take<DevicePrediction>("left predictions", std::ssize(product.left), stream_);
    link_.upload(left.data(), product.left.data(), left.bytes(), stream_);
    const auto words = memory_.take<std::uint32_t>("left words", left.size(), stream_);
    const auto outside = memory_.take<std::int32_t>("rows outside", rows, stream_);
    const auto not_bf16 = memory_.take<std::int32_t>("left needs more than bf16", 1, stream_);
    const PredictedLeft prepared{words.data(), outside.data(), not_bf16.data()};
    prepare_predicted(left.data(), rows, product.k, prepared, stream_);
    std::int32_t wide = 1;
    ASSAY_CUDA(cudaMemcpyAsync(&wide, not_bf16.data(), sizeof wide, cudaMemcpyDeviceToHost, stream_));
    ASSAY_CUDA(cudaStreamSynchronize(stream_));
    if (wide != 0) return false;
    const auto result = memory_.take<DevicePrediction>("predicted product", std::ssize(out), stream_);
    const auto matrices = values ? placed(product, *values) : placed(product);
    run(product, kPredictedTileRows, matrices, [&](const DeviceOperands& operands) {
      predicted_product(operands, left.data(), prepared, parts, fraction_bits_, result.data(), stream_);
    });
    link_.download(out.data(), result.data(), result.bytes(), stream_);
    result.verify_guards();
    return true;
  }

  bool cells(const FieldRows& field, FieldCells& out) {
    if (field.tasks() > kMostTasks || field.out.bf16() == nullptr) return false;
    const std::scoped_lock lock(mutex_);
    const auto values = uploaded<std::uint16_t>("values", std::span(field.out.bf16(), field.out.size()));
    const auto intervals = uploaded<DeviceInterval>("intervals", field.reference);
    const auto arguments = uploaded<std::uint16_t>("classes", field.classes);
    const auto cells = memory_.take<DeviceCell>("cells", std::ssize(out.cells), stream_);
    const auto columns = memory_.take<double>("column sums", std::ssize(out.column_flips_expected), stream_);
    const auto classes = memory_.take<DeviceClass>("class sums", std::ssize(out.classes), stream_);
    ASSAY_CUDA(cudaMemsetAsync(classes.data(), 0, classes.bytes(), stream_));
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
  /// A group's matrix [n, k] on the device and the granularity of its columns [n], which the host holds.
  struct PlacedMatrix {
    const bf16* values = nullptr;
    const double* granularity = nullptr;
  };

  /// Of a product whose right operand has errors.
  bool two_sided(const GroupedProduct<Interval>& product, std::span<Interval> out) {
    if (product.offsets.size() != 2) return false;
    const TwoSidedTerms terms(product);
    if (terms.exact_panel) return false;
    const std::scoped_lock lock(mutex_);
    const auto left = uploaded<TwoSidedLeft>("two-sided left terms", terms.left);
    const auto right = uploaded<TwoSidedRight>("two-sided right terms", terms.right);
    const auto sums = memory_.take<TwoSidedSums>("two-sided sums", std::ssize(out), stream_);
    const auto tiles = uploaded<ProductTile>("product tiles", tiles_of(product, kBoundedTileRows));
    const auto source = uploaded<std::int32_t>("source rows", product.source);
    two_sided_product(
        {tiles.data(), tiles.size(), source.data(), left.data(), right.data(), product.k, product.n},
        sums.data(), stream_);
    receive(sums, [&](std::size_t first, std::span<const TwoSidedSums> from) {
      const auto gather = [&](std::size_t at, std::size_t, std::size_t, std::size_t some, Neighbours& to) {
        const TwoSidedSums* const of = from.data() + (at - first);
        for (std::size_t i = 0; i < some; ++i) {
          to.ref[i] = of[i].ref;
          to.spread[i] = of[i].spread;
          to.squares[i] = of[i].squares;
          to.running[i] = kNoRunningBound;
          to.exact[i] = false;
        }
      };
      make_intervals(ElementConstants(terms.shape), static_cast<std::size_t>(product.n), first, from.size(),
                     gather, out);
    });
    return true;
  }

  /// The host's elements on the device, where they have the layout of T.
  template <class T, class From>
  KeptElements<T> uploaded(const char* name, const From& from) {
    static_assert(sizeof(T) == sizeof(*std::data(from)));
    const auto elements = memory_.take<T>(name, std::ssize(from), stream_);
    link_.upload(elements.data(), std::data(from), elements.bytes(), stream_);
    return elements;
  }

  /// Hands sums over in pieces, each with its first element's number, and verifies the memory they came from.
  template <class Sums, class Take>
  void receive(const KeptElements<Sums>& sums, const Take& take) {
    link_.receive(sums.data(), sums.bytes(), sizeof(Sums) * kElementsAtOnce, stream_,
                  [&](std::size_t at, const unsigned char* bytes, std::size_t count) {
                    take(at / sizeof(Sums),
                         std::span(reinterpret_cast<const Sums*>(bytes), count / sizeof(Sums)));
                  });
    sums.verify_guards();
  }

  /// Runs `launch` on the product's rows and matrices, one per group.
  template <class Value, class Launch>
  void run(const GroupedProduct<Value>& product, int rows_of_tile, const std::vector<PlacedMatrix>& matrices,
           Launch launch) {
    std::vector<const bf16*> pointers;
    for (const PlacedMatrix& matrix : matrices) pointers.push_back(matrix.values);
    const auto tiles = uploaded<ProductTile>("product tiles", tiles_of(product, rows_of_tile));
    const auto source = uploaded<std::int32_t>("source rows", product.source);
    const auto weights = uploaded<const bf16*>("weight pointers", pointers);
    launch(DeviceOperands{tiles.data(), tiles.size(), source.data(), weights.data(), product.k, product.n});
    ASSAY_CUDA(cudaStreamSynchronize(stream_));
  }

  /// The weights, no matrix where a group has no rows. Loading may mean generating: experts are loaded side
  /// by side.
  template <class Value>
  std::vector<PlacedMatrix> placed(const GroupedProduct<Value>& product) {
    const auto groups = std::ssize(product.offsets) - 1;
    held_.assign(static_cast<std::size_t>(groups), nullptr);
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto group = static_cast<std::size_t>(g);
      if (product.offsets[group] == product.offsets[group + 1]) continue;
      try {
        held_[group] = weights_->place(product.weights(g), product.n, product.k, product.right_lies);
      } catch (...) {
#pragma omp critical
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    ASSAY_CUDA(cudaDeviceSynchronize());  // they are uploaded on the default stream
    std::vector<PlacedMatrix> matrices;
    for (const auto& held : held_)
      matrices.push_back(held ? PlacedMatrix{held->values.data(), held->granularity.data()} : PlacedMatrix{});
    return matrices;
  }

  /// One matrix of values for all groups.
  template <class Value>
  std::vector<PlacedMatrix> placed(const GroupedProduct<Value>& product, std::span<const Bf16> values) {
    const auto matrix = uploaded<bf16>("matrix of values", values);
    const auto lowest = memory_.take<std::int32_t>("column granularity", product.n, stream_);
    column_granularity(matrix.data(), product.k, product.n, lowest.data(), stream_);
    std::vector<std::int32_t> exponents(static_cast<std::size_t>(product.n));
    link_.download(exponents.data(), lowest.data(), lowest.bytes(), stream_);
    granularity_.clear();
    for (const std::int32_t exponent : exponents) granularity_.push_back(power_of(exponent));
    return std::vector<PlacedMatrix>(product.offsets.size() - 1, {matrix.data(), granularity_.data()});
  }

  int fraction_bits_;
  std::mutex mutex_;
  Stream stream_;
  HostLink link_;
  KeptMemory memory_;
  std::shared_ptr<WeightCache> weights_;
  std::vector<std::shared_ptr<const DeviceMatrix>> held_;  // by the product that runs
  std::vector<double> granularity_;
};

}  // namespace
}  // namespace gpu

std::optional<Engine> gpu_engine(const LeastWork& least, int fraction_bits) {
  if (gpu_unavailable()) return std::nullopt;
  cudaDeviceProp device{};
  ASSAY_CUDA(cudaGetDeviceProperties(&device, 0));
  // Three that do not wait for one another, each with a stream and ways to the device of its own. Made when
  // the first work comes: a context costs time and memory.
  struct Devices {
    std::once_flag once;
    std::optional<gpu::DeviceEngine> bounded;
    std::optional<gpu::DeviceEngine> predicted;
    std::optional<gpu::DeviceEngine> cells;
  };
  const auto ready = [devices = std::make_shared<Devices>(), fraction_bits]() -> Devices& {
    std::call_once(devices->once, [&] {
      const auto weights = std::make_shared<gpu::WeightCache>();
      for (auto* device : {&devices->bounded, &devices->predicted, &devices->cells})
        device->emplace(fraction_bits, weights);
    });
    return *devices;
  };
  Engine made;
  made.name = std::string("gpu: ") + device.name;
  made.least_multiply_adds = least.multiply_adds;
  made.least_elements = least.elements;
  made.bounded = [ready](const auto& product, auto out) { return ready().bounded->bounded(product, out); };
  made.predicted = [ready](const auto& product, auto out) {
    return ready().predicted->predicted(product, out);
  };
  made.cells = [ready](const FieldRows& field, FieldCells& out) { return ready().cells->cells(field, out); };
  return made;
}

}  // namespace assay
