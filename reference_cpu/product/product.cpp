#include "reference_cpu/product/product.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <limits>

#include "harness/contract/worth_threads.h"
#include "harness/host/phase_timer.h"
#include "reference_cpu/arithmetic.h"
#include "reference_cpu/product/kept_panels.h"
#include "reference_cpu/product/product_by_engine.h"
#include "reference_cpu/product/product_kernels.h"
#include "reference_cpu/product/product_operands.h"

namespace assay {

extern const ProductKernels baseline;
extern const ProductKernels avx2;
extern const ProductKernels avx512;

namespace {

constexpr int kBoundedRows = 2;             // that a kernel takes at once
constexpr std::int64_t kRowsPerTask = 256;  // a packed panel is reused by this many rows
constexpr std::int64_t kGroupsAtOnce =
    16;  // experts loaded together, so that loading is parallel and memory stays bounded

std::atomic<const ProductKernels*> selected_kernels = nullptr;

/// Rows of one group that share weights and length of K; faults split groups.
struct Segment {
  std::int64_t weights_group;
  // rows
  std::int64_t begin;
  std::int64_t end;
  std::int64_t k;  // terms summed
  bool zero;       // rows left zero
};

template <class Value>
std::vector<Segment> segments(const GroupedProduct<Value>& p) {
  std::vector<Segment> all;
  const auto groups = static_cast<std::int64_t>(p.offsets.size()) - 1;
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto begin = p.offsets[static_cast<std::size_t>(g)];
    const auto end = p.offsets[static_cast<std::size_t>(g) + 1];
    if (begin == end) continue;
    Segment whole{g, begin, end, p.k, false};
    const Fault& fault = p.fault;
    if (fault.kind == FaultKind::DropLastK ||
        (fault.kind == FaultKind::DropLastKOfExpert && fault.expert == g))
      whole.k = std::max<std::int64_t>(0, p.k - fault.amount);
    std::int64_t tail = 0;
    if (fault.kind == FaultKind::ZeroLastRow) tail = 1;
    if (fault.kind == FaultKind::WrongExpert) tail = std::min(fault.amount, end - begin);
    if (tail == 0) {
      all.push_back(whole);
      continue;
    }
    if (begin < end - tail) all.push_back({g, begin, end - tail, p.k, false});
    const bool zero = fault.kind == FaultKind::ZeroLastRow;
    all.push_back({zero ? g : (g + 1) % groups, end - tail, end, p.k, zero});
  }
  return all;
}

constexpr int rows_at_once(const BoundedRows&) { return kBoundedRows; }
constexpr int rows_at_once(const PredictedRows&) { return kTensorRows; }

void compute(const GroupedProduct<Interval>& p, const BoundedRows& left, PackedPanel& panel,
             const Segment& segment, std::int64_t row, int rows, std::int64_t first, std::int64_t count,
             LargeVector<Interval>& out) {
  BoundedRow left_rows[kBoundedRows];
  BoundedSums sums[kBoundedRows];
  double granularity[kBoundedRows] = {};
  bool exact_row[kBoundedRows] = {};
  for (int i = 0; i < rows; ++i) {
    const auto source = p.source[static_cast<std::size_t>(row + i)];
    left_rows[i] = left.row(source, p.k);
    if (!panel.exact) {
      kernels_in_use().intervals(panel.intervals(segment.k), left.interval_row(source, p.k), sums + i);
      continue;
    }
    granularity[i] = left.granularity[static_cast<std::size_t>(source)];
    exact_row[i] = left.exact[static_cast<std::size_t>(source)] != 0;
  }
  if (panel.exact) kernels_in_use().bounded(panel.view(segment.k), left.walk(), left_rows, rows, sums);
  static_assert(kPanelColumns == kElementsAtOnce);
  for (int i = 0; i < rows; ++i) {
    if (!exact_row[i]) std::ranges::fill(sums[i].running, std::numeric_limits<float>::infinity());
    bool exact[kPanelColumns] = {};
    for (std::int64_t c = 0; granularity[i] > 0.0 && c < count; ++c) {
      const float spread = sums[i].spread[c];
      const double right =
          panel.granularity_from(c, p.k, left.constants.least_right_granularity(spread, granularity[i]));
      exact[c] = left.constants.exact_in_any_order(spread, granularity[i], right);
    }
    product_intervals(left.constants, {sums[i].ref, sums[i].spread, sums[i].squares, sums[i].running}, exact,
                      static_cast<int>(count), out.data() + (row + i) * p.n + first);
  }
}

/// The tensor core, stretch by stretch; partial sums are added in fp32.
void tensor_core(const Panel& panel, const Summation& order, std::span<const TensorRow> rows) {
  float partial[kTensorRows][kPanelColumns] = {};
  TensorRow parts[kTensorRows];
  for (std::size_t i = 0; i < rows.size(); ++i)
    parts[i] = {rows[i].values, rows[i].exponents, partial[i], rows[i].flags};
  bool first = true;
  for (const auto& stretch : order.stretches) {
    kernels_in_use().tensor_core(panel, order.rule, stretch.begin, stretch.end, parts,
                                 static_cast<int>(rows.size()));
    if (!stretch.closes) continue;
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (int c = 0; c < kPanelColumns; ++c) {
        float& sum = rows[i].sums[c];
        sum = first ? partial[i][c] : sum + partial[i][c];
        partial[i][c] = 0.0f;
      }
    first = false;
  }
}

void compute(const GroupedProduct<PredictedValue>& p, const PredictedRows& left, const PackedPanel& panel,
             const Segment& segment, std::int64_t row, int rows, std::int64_t first, std::int64_t count,
             LargeVector<PredictedValue>& out) {
  const auto& kernels = kernels_in_use();
  const Summation shorter = segment.k < p.k ? summation(p.accumulator, segment.k) : Summation{};
  const Summation& order = segment.k < p.k ? shorter : left.order;
  const Panel view = panel.view(segment.k);
  float sums[kTensorRows][kPanelColumns] = {};
  std::int32_t flags[kTensorRows][kPanelColumns] = {};
  TensorRow of[kTensorRows];
  for (int i = 0; i < rows; ++i) {
    const auto at = p.source[static_cast<std::size_t>(row + i)] * left.stride;
    of[i] = {left.values.data() + at, left.exponents.data() + at, sums[i], flags[i]};
    if (p.fault.kind == FaultKind::AccumulateBf16)
      kernels.bf16_sequential(view, of[i].values, sums[i]);
    else if (order.rule == StepRule::RoundEach)
      kernels.sequential(view, of[i].values, sums[i]);
    else if (order.rule == StepRule::RoundTree)
      kernels.pairwise(view, of[i].values, sums[i]);
  }
  // The integer model has no NaN and no Inf: what it leaves open is the fp32 sum, through which they spread
  // as on any machine. All else keeps the declared order, which a bound may hold it to.
  const bool modelled = order.rule != StepRule::RoundEach && order.rule != StepRule::RoundTree;
  if (modelled && p.fault.kind != FaultKind::AccumulateBf16)
    tensor_core(view, order, std::span(of, static_cast<std::size_t>(rows)));
  for (int i = 0; i < rows; ++i) {
    const auto source = static_cast<std::size_t>(p.source[static_cast<std::size_t>(row + i)]);
    PredictedValue* to = out.data() + (row + i) * p.n + first;
    std::int32_t open = left.outside[source] | left.undetermined[source];
    for (int c = 0; c < kPanelColumns; ++c) open |= flags[i][c] | panel.outside[c] | panel.undetermined[c];
    if (open == 0) {  // nearly always
      for (std::int64_t c = 0; c < count; ++c) to[c] = {sums[i][c], false};
      continue;
    }
    bool outside[kPanelColumns];
    bool any = false;
    for (std::int64_t c = 0; c < count; ++c) {
      outside[c] = flags[i][c] != 0 || panel.outside[c] || left.outside[source] != 0;
      any = any || outside[c];
    }
    float plain[kPanelColumns];
    if (any && modelled) kernels.sequential(view, of[i].values, plain);
    for (std::int64_t c = 0; c < count; ++c)
      to[c] = {outside[c] && modelled ? plain[c] : sums[i][c],
               outside[c] || panel.undetermined[c] || left.undetermined[source] != 0};
  }
}

/// Packs into `panel`.
PackedPanel& packed(PackedPanel& panel, const GroupedProduct<Interval>& p, const BoundedRows& left,
                    const ExpertMatrix& weights, const PanelPlace& place, const Segment& segment,
                    KeptPanels*) {
  if (p.weights)
    panel.pack(weights.values, place, false);
  else
    panel.pack(p.right, place, left.shape);
  if (segment.k < p.k) panel.clear_tail(segment.k);
  return panel;
}

/// Packs into `panel`, unless the columns are kept. A shorter K needs no other panel: no sum reads beyond it.
const PackedPanel& packed(PackedPanel& panel, const GroupedProduct<PredictedValue>& p, const PredictedRows&,
                          const ExpertMatrix& weights, const PanelPlace& place, const Segment&,
                          KeptPanels* kept) {
  if (p.weights && kept != nullptr)
    if (const auto* found = kept->find(weights, place)) return *found;
  if (p.weights)
    panel.pack(weights.values, place, true);
  else
    panel.pack(p.right, place);
  return panel;
}

template <class Rows>
LargeVector<typename Rows::Value> run(const GroupedProduct<typename Rows::Value>& p) {
  LargeVector<typename Rows::Value> out(p.source.size() * static_cast<std::size_t>(p.n));
  if (p.k == 0) {
#pragma omp parallel for schedule(static) if (worth_threads(out.size()))
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = {};
    return out;
  }
  const Rows left(p);
  const auto all = segments(p);
  KeptPanels* const kept = KeptPanels::of_this_thread();
  struct Task {
    std::size_t segment;
    std::int64_t first;
    std::int64_t row;
  };
  std::exception_ptr error;
  for (std::size_t chunk = 0; chunk < all.size(); chunk += kGroupsAtOnce) {
    const std::size_t chunk_end = std::min(all.size(), chunk + kGroupsAtOnce);
    std::vector<ExpertMatrix> weights(chunk_end - chunk);
    std::vector<Task> tasks;
    std::int64_t weight_rows = 0;  // that are loaded, and multiplied with
    for (std::size_t s = chunk; s < chunk_end; ++s) weight_rows += 1 + all[s].end - all[s].begin;
    for (std::size_t s = chunk; s < chunk_end; ++s)
      if (all[s].zero)
        std::fill(out.begin() + all[s].begin * p.n, out.begin() + all[s].end * p.n, typename Rows::Value{});
    for (std::size_t s = chunk; s < chunk_end; ++s)
      for (std::int64_t row = all[s].begin; !all[s].zero && row < all[s].end; row += kRowsPerTask)
        for (std::int64_t first = 0; first < p.n; first += kPanelColumns) tasks.push_back({s, first, row});
#pragma omp parallel if (worth_threads(weight_rows * p.n * p.k))
    {
#pragma omp for schedule(dynamic, 1)
      for (std::size_t s = chunk; s < chunk_end; ++s) {
        try {
          if (p.weights) weights[s - chunk] = p.weights(all[s].weights_group);
        } catch (...) {
#pragma omp critical
          error = std::current_exception();
        }
      }
      PackedPanel scratch;
#pragma omp for schedule(dynamic, 4)
      for (std::size_t t = 0; t < tasks.size(); ++t) {
        if (error) continue;
        const auto& [s, first, begin] = tasks[t];
        const Segment& segment = all[s];
        const std::int64_t count = std::min<std::int64_t>(kPanelColumns, p.n - first);
        auto& columns = packed(scratch, p, left, weights[s - chunk], {p.k, p.n, first, count, p.right_lies},
                               segment, kept);
        const std::int64_t end = std::min(segment.end, begin + kRowsPerTask);
        for (std::int64_t row = begin; row < end; row += rows_at_once(left))
          compute(p, left, columns, segment, row, std::min(rows_at_once(left), static_cast<int>(end - row)),
                  first, count, out);
      }
    }
    if (error) std::rethrow_exception(error);
  }
  return out;
}

}  // namespace

LargeVector<Interval> grouped_product(const GroupedProduct<Interval>& product) {
  if (auto taken_over = product_by_engine<Interval>(product, run<BoundedRows>)) return std::move(*taken_over);
  const PhaseTimer timer("bounded products");
  return run<BoundedRows>(product);
}

std::shared_ptr<const KeptIntervals> kept_product(const GroupedProduct<Interval>& product,
                                                  const CommonErrors& errors) {
  return product_kept_by_engine(product, errors, run<BoundedRows>);
}

LargeVector<PredictedValue> grouped_product(const GroupedProduct<PredictedValue>& product) {
  if (auto taken_over = product_by_engine<PredictedValue>(product, run<PredictedRows>))
    return std::move(*taken_over);
  const PhaseTimer timer("predicted products");
  return run<PredictedRows>(product);
}

const ProductKernels* product_kernels(const char* name) {
  if (std::strcmp(name, baseline.name) == 0) return &baseline;
  if (std::strcmp(name, avx2.name) == 0) return __builtin_cpu_supports("x86-64-v3") ? &avx2 : nullptr;
  if (std::strcmp(name, avx512.name) == 0) return __builtin_cpu_supports("x86-64-v4") ? &avx512 : nullptr;
  return nullptr;
}

const ProductKernels& product_kernels() {
  for (const char* name : {"avx512", "avx2"})
    if (const auto* found = product_kernels(name)) return *found;
  return baseline;
}

const ProductKernels& kernels_in_use() {
  if (selected_kernels.load() == nullptr) selected_kernels = &product_kernels();
  return *selected_kernels.load();
}

bool use_product_kernels(const char* name) {
  const auto* found = *name == '\0' ? &product_kernels() : product_kernels(name);
  if (found != nullptr) selected_kernels = found;
  return found != nullptr;
}

}  // namespace assay
