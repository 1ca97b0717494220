#include "gpu/engine/gpu_engine.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "gpu/device_problem.h"
#include "gpu/engine/cell_kernels.h"
#include "gpu/engine/element_intervals.h"
#include "gpu/engine/engine_kernels.h"
#include "gpu/engine/kept_memory.h"
#include "gpu/engine/operand_terms.h"
#include "gpu/engine/product_rows.h"
#include "gpu/host_link.h"
#include "gpu/pipeline.h"
#include "gpu/weight_cache.h"
#include "harness/contract/element_constants.h"

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

class DeviceEngine {
 public:
  DeviceEngine(int fraction_bits, std::shared_ptr<WeightCache> weights)
      : fraction_bits_(fraction_bits), weights_(std::move(weights)) {}

  bool bounded(const GroupedProduct<Interval>& product, std::span<Interval> out) {
    return with_intervals(product, nullptr, [&](const KeptElements<DeviceInterval>& made) {
      link_.download(out.data(), made.data(), made.bytes(), stream_);
    });
  }

  std::optional<KeptElements<DeviceInterval>> kept(const GroupedProduct<Interval>& product,
                                                   const CommonErrors& errors) {
    std::optional<KeptElements<DeviceInterval>> kept;
    with_intervals(product, &errors, [&](const KeptElements<DeviceInterval>& made) { kept = made; });
    return kept;
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
    if (!compares(field)) return false;
    const std::scoped_lock lock(mutex_);
    const auto intervals = uploaded<DeviceInterval>("intervals", field.reference);
    cells(field, intervals, out);
    return true;
  }

  /// With intervals that another made.
  bool cells_of_kept(const FieldRows& field, const KeptElements<DeviceInterval>& intervals, FieldCells& out) {
    if (!compares(field)) return false;
    ASSAY_CHECK(intervals.size() == field.rows * field.width, "expected an interval for every element");
    const std::scoped_lock lock(mutex_);
    cells(field, intervals, out);
    return true;
  }

  void bring(const KeptElements<DeviceInterval>& from, std::span<const std::int64_t> starts,
             std::int64_t count, std::span<Interval> out) {
    ASSAY_CHECK(
        std::ssize(out) == std::ssize(starts) * count &&
            std::ranges::all_of(starts, [&](std::int64_t s) { return s >= 0 && s <= from.size() - count; }),
        "expected to bring intervals that there are");
    if (out.empty()) return;
    const std::scoped_lock lock(mutex_);
    if (starts.size() == 1) {
      link_.download(out.data(), from.data() + starts.front(), out.size_bytes(), stream_);
      return;
    }
    const auto elements = uploaded<std::int64_t>("elements to bring", starts);
    const auto together = memory_.take<DeviceInterval>("brought intervals", std::ssize(out), stream_);
    bring_intervals(from.data(), elements.data(), elements.size(), count, together.data(), stream_);
    link_.download(out.data(), together.data(), together.bytes(), stream_);
    together.verify_guards();
  }

 private:
  /// A group's matrix [n, k] and the granularity of its columns [n].
  struct PlacedMatrix {
    const bf16* values = nullptr;
    const double* granularity = nullptr;
  };

  /// Hands the product's intervals over on the device, complete where `errors` tells what they lack; false
  /// where it is not to be had, or to be kept.
  template <class Take>
  bool with_intervals(const GroupedProduct<Interval>& product, const CommonErrors* errors, const Take& take) {
    if (!fits(product)) return false;
    const auto values = product.weights ? std::nullopt : matrix_of_values(product);
    if (!product.weights && !values) return two_sided(product, errors, take);
    const LeftTerms left(product);
    PartEnds parts{};
    const Summation any_order{StepRule::Truncate16, {{0, product.k, true}}};
    if (!parts_of(left.shape.running ? summation(product.accumulator, product.k) : any_order, product.k,
                  parts))
      return false;
    const std::scoped_lock lock(mutex_);
    const auto terms = uploaded<BoundedTerm>("left terms", left.terms);
    const auto sums = memory_.take<DeviceSums>("bounded sums", elements_of(product), stream_);
    const auto matrices = values ? placed(product, *values) : placed(product);
    run(product, kBoundedTileRows, matrices, [&](const DeviceOperands& operands) {
      bounded_product(operands, terms.data(), parts, left.shape.running,
                      static_cast<float>(1.0 / left.shape.c), sums.data(), stream_);
    });
    std::vector<std::int32_t> group_of_row;
    std::vector<const double*> granularity;
    for (std::size_t g = 0; g + 1 < product.offsets.size(); ++g) {
      group_of_row.resize(static_cast<std::size_t>(product.offsets[g + 1]), static_cast<std::int32_t>(g));
      granularity.push_back(matrices[g].granularity);
    }
    const auto source = uploaded<std::int32_t>("source rows", product.source);
    const auto groups = uploaded<std::int32_t>("groups of rows", group_of_row);
    const auto of_rows = uploaded<double>("granularity of rows", left.rows.granularity);
    const auto exact_rows = uploaded<std::uint8_t>("exact rows", left.rows.exact);
    const auto of_columns = uploaded<const double*>("granularity pointers", granularity);
    return finish({std::ssize(product.source), product.n, ElementConstants(left.shape), source.data(),
                   groups.data(), of_rows.data(), exact_rows.data(), of_columns.data()},
                  sums, errors, take);
  }

  /// Of a product whose right operand has errors.
  template <class Take>
  bool two_sided(const GroupedProduct<Interval>& product, const CommonErrors* errors, const Take& take) {
    if (product.offsets.size() != 2) return false;
    const TwoSidedTerms terms(product);
    if (terms.exact_panel) return false;
    const std::scoped_lock lock(mutex_);
    const auto left = uploaded<TwoSidedLeft>("two-sided left terms", terms.left);
    const auto right = uploaded<TwoSidedRight>("two-sided right terms", terms.right);
    const auto sums = memory_.take<TwoSidedSums>("two-sided sums", elements_of(product), stream_);
    const auto tiles = uploaded<ProductTile>("product tiles", tiles_of(product, kBoundedTileRows));
    const auto source = uploaded<std::int32_t>("source rows", product.source);
    two_sided_product(
        {tiles.data(), tiles.size(), source.data(), left.data(), right.data(), product.k, product.n},
        sums.data(), stream_);
    return finish({std::ssize(product.source), product.n, ElementConstants(terms.shape)}, sums, errors, take);
  }

  /// Makes intervals of the sums and hands them over; false where there is no memory to keep them.
  template <class Sums, class Take>
  bool finish(ElementOperands operands, const KeptElements<Sums>& sums, const CommonErrors* errors,
              const Take& take) {
    std::optional<KeptElements<double>> of_rows;
    std::optional<KeptElements<double>> of_columns;
    if (errors != nullptr) {
      ASSAY_CHECK(
          std::ssize(errors->of_rows) == operands.rows && std::ssize(errors->of_columns) == operands.n,
          "expected common errors of every row and column");
      operands.row_errors = of_rows.emplace(uploaded<double>("errors of rows", errors->of_rows)).data();
      operands.column_errors =
          of_columns.emplace(uploaded<double>("errors of columns", errors->of_columns)).data();
      operands.above_underflow = errors->above_underflow;
    }
    const auto out = errors != nullptr
                         ? memory_.take_apart<DeviceInterval>("kept intervals", sums.size(), stream_)
                         : memory_.take<DeviceInterval>("made intervals", sums.size(), stream_);
    if (!out) return false;
    element_intervals(operands, sums.data(), out->data(), stream_);
    take(*out);
    ASSAY_CUDA(cudaStreamSynchronize(stream_));
    sums.verify_guards();
    out->verify_guards();
    return true;
  }

  static bool compares(const FieldRows& field) {
    return field.tasks() <= kMostTasks && field.out.bf16() != nullptr;
  }

  void cells(const FieldRows& field, const KeptElements<DeviceInterval>& intervals, FieldCells& out) {
    const auto values = uploaded<std::uint16_t>("values", std::span(field.out.bf16(), field.out.size()));
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
  }

  /// The host's elements on the device, where they have the layout of T.
  template <class T, class From>
  KeptElements<T> uploaded(const char* name, const From& from) {
    static_assert(sizeof(T) == sizeof(*std::data(from)));
    const auto elements = memory_.take<T>(name, std::ssize(from), stream_);
    link_.upload(elements.data(), std::data(from), elements.bytes(), stream_);
    return elements;
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
    std::vector<double> powers;
    for (const std::int32_t exponent : exponents) powers.push_back(power_of(exponent));
    const auto granularity = uploaded<double>("granularity of columns", powers);
    return std::vector<PlacedMatrix>(product.offsets.size() - 1, {matrix.data(), granularity.data()});
  }

  int fraction_bits_;
  std::mutex mutex_;
  Stream stream_;
  HostLink link_;
  KeptMemory memory_;
  std::shared_ptr<WeightCache> weights_;
  std::vector<std::shared_ptr<const DeviceMatrix>> held_;  // by the product that runs
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
  made.kept = [ready](const auto& product, const auto& errors) -> std::shared_ptr<const KeptIntervals> {
    const auto kept = ready().bounded->kept(product, errors);
    if (!kept) return nullptr;
    return std::make_shared<const KeptIntervals>(
        kept->size(),
        [ready, kept = *kept](auto starts, std::int64_t count, auto out) {
          ready().cells->bring(kept, starts, count, out);
        },
        [ready, kept = *kept](const FieldRows& field, FieldCells& out) {
          return ready().cells->cells_of_kept(field, kept, out);
        });
  };
  return made;
}

}  // namespace assay
