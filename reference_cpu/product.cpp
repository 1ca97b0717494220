#include "reference_cpu/product.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <exception>

#include <Eigen/Core>

#include "harness/phase_timer.h"
#include "reference_cpu/arithmetic.h"
#include "reference_cpu/product_by_engine.h"
#include "reference_cpu/product_kernels.h"

namespace assay {

extern const ProductKernels baseline, avx2, avx512;

namespace {

constexpr std::int64_t kRowsPerTask = 256;  // a packed panel is reused by this many rows
constexpr std::int64_t kGroupsAtOnce = 16;  // experts loaded together, so that loading is parallel and memory stays bounded

std::atomic<const ProductKernels*> selected_kernels = nullptr;

std::int64_t padded(std::int64_t k) { return (k + 15) / 16 * 16; }

std::int32_t exponent(float x) {
  return x == 0.0f ? kZeroExponent : static_cast<std::int32_t>((std::bit_cast<std::uint32_t>(x) >> 23) & 0xff) - 127;
}

/// Inf, NaN and subnormal operands are outside what was measured of the tensor core.
bool outside_measured(float x) { return x != 0.0f && !std::isnormal(x); }

// The left operand, prepared once for all columns.
struct BoundedRows {
  using Value = Interval;
  static constexpr bool kNeedsExponents = false;
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> ref;
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> spread, squares;

  explicit BoundedRows(const GroupedProduct<Interval>& p) {
    const auto rows = p.k == 0 ? 0 : static_cast<std::int64_t>(p.left.size()) / p.k;
    ref.resize(rows, p.k);
    spread.resize(rows, p.k);
    squares.resize(rows, p.k);
    const double rate = accumulation_rate(p.k, p.unit_roundoff);
    const double c = product_bound_constant(p.k, p.unit_roundoff);
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < rows * p.k; ++i) {
      const Interval& x = p.left[static_cast<std::size_t>(i)];
      ref.data()[i] = x.ref;
      // |sum (a + da) b - fl(...)| <= sum |da||b| + C(k) sum (|a| + |da|)|b|; the factor covers the narrowing to fp32.
      const double r = radius(x);
      spread.data()[i] = static_cast<float>((r + c * (std::fabs(x.ref) + r)) * (1.0 + 0x1p-22));
      // Carried noise in units of what q^2 counts for: one sum serves both.
      squares.data()[i] = static_cast<float>(x.ref * x.ref + x.noise * x.noise * 6.0 / rate);
    }
  }
};

struct PredictedRows {
  using Value = PredictedValue;
  static constexpr bool kNeedsExponents = true;
  std::int64_t stride = 0;
  LargeVector<float> values;            // [rows, stride], zero-padded
  LargeVector<std::int32_t> exponents;  // [rows, stride]
  std::vector<std::uint8_t> outside;    // [rows]

  explicit PredictedRows(const GroupedProduct<PredictedValue>& p) : stride(padded(p.k)) {
    const auto rows = p.k == 0 ? 0 : static_cast<std::int64_t>(p.left.size()) / p.k;
    values.resize(static_cast<std::size_t>(rows * stride));
    exponents.resize(values.size());
    outside.resize(static_cast<std::size_t>(rows));
#pragma omp parallel for schedule(static)
    for (std::int64_t r = 0; r < rows; ++r) {
      bool out = false;
      for (std::int64_t k = 0; k < p.k; ++k) {
        const auto& x = p.left[static_cast<std::size_t>(r * p.k + k)];
        const auto at = static_cast<std::size_t>(r * stride + k);
        values[at] = x.value;
        exponents[at] = exponent(x.value);
        out = out || x.undetermined || outside_measured(x.value);
      }
      for (std::int64_t k = p.k; k < stride; ++k) {
        values[static_cast<std::size_t>(r * stride + k)] = 0.0f;
        exponents[static_cast<std::size_t>(r * stride + k)] = kZeroExponent;
      }
      outside[static_cast<std::size_t>(r)] = out;
    }
  }
};

// 16 columns of one expert's matrix, K-major.
struct PackedPanel {
  std::vector<float> values;
  std::vector<std::int32_t> exponents;
  bool outside[kPanelColumns] = {};

  void pack(std::span<const Bf16> weights, std::int64_t k, std::int64_t first, std::int64_t count, bool with_exponents) {
    values.assign(static_cast<std::size_t>(padded(k) * kPanelColumns), 0.0f);
    if (with_exponents) exponents.assign(values.size(), kZeroExponent);
    for (std::int64_t c = 0; c < count; ++c) {
      const Bf16* column = weights.data() + (first + c) * k;
      outside[c] = false;
      for (std::int64_t i = 0; i < k; ++i) values[static_cast<std::size_t>(i * kPanelColumns + c)] = to_float(column[i]);
      if (!with_exponents) continue;
      bool out = false;
      for (std::int64_t i = 0; i < k; ++i) {
        const float x = to_float(column[i]);
        exponents[static_cast<std::size_t>(i * kPanelColumns + c)] = exponent(x);
        out = out || outside_measured(x);
      }
      outside[c] = out;
    }
  }
  Panel view(std::int64_t k) const { return {values.data(), exponents.data(), k}; }
};

/// Rows of one group that share weights and length of K; faults split groups.
struct Segment {
  std::int64_t weights_group;
  std::int64_t begin, end;  // rows
  std::int64_t k;           // terms summed
  bool zero;                // rows left zero
};

template <class Value>
std::vector<Segment> segments(const GroupedProduct<Value>& p) {
  std::vector<Segment> all;
  const auto groups = static_cast<std::int64_t>(p.offsets.size()) - 1;
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto begin = p.offsets[static_cast<std::size_t>(g)], end = p.offsets[static_cast<std::size_t>(g) + 1];
    if (begin == end) continue;
    Segment whole{g, begin, end, p.k, false};
    const Fault& fault = p.fault;
    if (fault.kind == FaultKind::DropLastK || (fault.kind == FaultKind::DropLastKOfExpert && fault.expert == g))
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

void compute(const GroupedProduct<Interval>& p, const BoundedRows& left, const PackedPanel& panel, const Segment& segment,
             std::int64_t row, int rows, std::int64_t first, std::int64_t count, LargeVector<Interval>& out) {
  BoundedRow left_rows[2];
  for (int i = 0; i < rows; ++i) {
    const auto source = p.source[static_cast<std::size_t>(row + i)];
    left_rows[i] = {left.ref.data() + source * p.k, left.spread.data() + source * p.k, left.squares.data() + source * p.k};
  }
  BoundedSums sums[2];
  selected_kernels.load()->bounded(panel.view(segment.k), left_rows, rows, sums);
  // fp32 sum of non-negative terms: inflate by its own error; n 2^-149 covers underflow.
  const double inflate = 1.0 + 2.0 * product_bound_constant(p.k);
  const double floor = static_cast<double>(p.k) * 0x1p-149;
  for (int i = 0; i < rows; ++i)
    for (std::int64_t c = 0; c < count; ++c) {
      const double value = sums[i].ref[c], delta = sums[i].spread[c] * inflate + floor;
      const double variance = accumulation_variance(p.k, value, sums[i].squares[c], p.unit_roundoff) + uniform_variance(floor);
      out[static_cast<std::size_t>((row + i) * p.n + first + c)] = with_noise({value, value - delta, value + delta}, std::sqrt(variance));
    }
}

void hopper_split(const Panel& panel, const Accumulator& accumulator, const float* a, const std::int32_t* exponents,
                  float* sums, std::int32_t* flags) {
  const auto& kernels = *selected_kernels.load();
  const std::int64_t k = padded(panel.k);
  if (accumulator.splits.empty()) return kernels.hopper(panel, a, exponents, 0, k, sums, flags);
  std::int64_t begin = 0;
  std::fill_n(flags, kPanelColumns, 0);
  for (std::size_t part = 0; part < accumulator.splits.size(); ++part) {
    const bool last = part + 1 == accumulator.splits.size();
    const std::int64_t end = last ? k : std::min(k, begin + accumulator.splits[part]);
    float partial[kPanelColumns];
    std::int32_t outside[kPanelColumns];
    kernels.hopper(panel, a, exponents, begin, end, partial, outside);
    for (int c = 0; c < kPanelColumns; ++c) {
      sums[c] = part == 0 ? partial[c] : sums[c] + partial[c];
      flags[c] |= outside[c];
    }
    begin = end;
  }
}

void compute(const GroupedProduct<PredictedValue>& p, const PredictedRows& left, const PackedPanel& panel,
             const Segment& segment, std::int64_t row, int rows, std::int64_t first, std::int64_t count,
             LargeVector<PredictedValue>& out) {
  const auto& kernels = *selected_kernels.load();
  for (int i = 0; i < rows; ++i) {
    const auto source = p.source[static_cast<std::size_t>(row + i)];
    const float* a = left.values.data() + source * left.stride;
    const std::int32_t* exponents = left.exponents.data() + source * left.stride;
    float sums[kPanelColumns] = {};
    std::int32_t flags[kPanelColumns] = {};
    const Panel view = panel.view(segment.k);
    if (p.fault.kind == FaultKind::AccumulateBf16) kernels.bf16_sequential(view, a, sums);
    else if (p.accumulator.kind == AccumulatorKind::Fp32Sequential) kernels.sequential(view, a, sums);
    else if (p.accumulator.kind == AccumulatorKind::Fp32Pairwise) kernels.pairwise(view, a, sums);
    else hopper_split(view, p.accumulator, a, exponents, sums, flags);
    bool open[kPanelColumns], any = false;
    for (std::int64_t c = 0; c < count; ++c) {
      open[c] = flags[c] != 0 || panel.outside[c] || left.outside[static_cast<std::size_t>(source)] != 0;
      any = any || open[c];
    }
    // The integer model has no NaN and no Inf: what it leaves open is the fp32 sum, through which they spread as on any machine.
    float plain[kPanelColumns];
    if (any) kernels.sequential(view, a, plain);
    for (std::int64_t c = 0; c < count; ++c)
      out[static_cast<std::size_t>((row + i) * p.n + first + c)] = {open[c] ? plain[c] : sums[c], open[c]};
  }
}

/// A dropped tail is a shorter K; the tensor-core step it ends in reads zeros there.
void clear_tail(PackedPanel& panel, std::int64_t from) {
  std::fill(panel.values.begin() + from * kPanelColumns, panel.values.end(), 0.0f);
  if (!panel.exponents.empty()) std::fill(panel.exponents.begin() + from * kPanelColumns, panel.exponents.end(), kZeroExponent);
}

template <class Rows>
LargeVector<typename Rows::Value> run(const GroupedProduct<typename Rows::Value>& p) {
  if (selected_kernels.load() == nullptr) selected_kernels = &product_kernels();
  LargeVector<typename Rows::Value> out(p.source.size() * static_cast<std::size_t>(p.n));
  const Rows left(p);
  const auto all = segments(p);
  struct Task {
    std::size_t segment;
    std::int64_t first, row;
  };
  std::exception_ptr error;
  for (std::size_t chunk = 0; chunk < all.size(); chunk += kGroupsAtOnce) {
    const std::size_t chunk_end = std::min(all.size(), chunk + kGroupsAtOnce);
    std::vector<ExpertMatrix> weights(chunk_end - chunk);
    std::vector<Task> tasks;
    for (std::size_t s = chunk; s < chunk_end; ++s)
      if (all[s].zero) std::fill(out.begin() + all[s].begin * p.n, out.begin() + all[s].end * p.n, typename Rows::Value{});
    for (std::size_t s = chunk; s < chunk_end; ++s)
      for (std::int64_t row = all[s].begin; !all[s].zero && row < all[s].end; row += kRowsPerTask)
        for (std::int64_t first = 0; first < p.n; first += kPanelColumns) tasks.push_back({s, first, row});
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1)
      for (std::size_t s = chunk; s < chunk_end; ++s) {
        try {
          weights[s - chunk] = p.weights(all[s].weights_group);
        } catch (...) {
#pragma omp critical
          error = std::current_exception();
        }
      }
      PackedPanel panel;
#pragma omp for schedule(dynamic, 4)
      for (std::size_t t = 0; t < tasks.size(); ++t) {
        if (error) continue;
        const auto& [s, first, begin] = tasks[t];
        const Segment& segment = all[s];
        const std::int64_t count = std::min<std::int64_t>(kPanelColumns, p.n - first);
        panel.pack(weights[s - chunk].values, p.k, first, count, Rows::kNeedsExponents);
        if (segment.k < p.k) clear_tail(panel, segment.k);
        const std::int64_t end = std::min(segment.end, begin + kRowsPerTask);
        for (std::int64_t row = begin; row < end; row += 2)
          compute(p, left, panel, segment, row, row + 1 < end ? 2 : 1, first, count, out);
      }
    }
    if (error) std::rethrow_exception(error);
  }
  return out;
}

}  // namespace

double product_bound_constant(std::int64_t n, double unit_roundoff) {
  // A float64 accumulator is compared with our own float64 sum: two errors of that size.
  return gamma(n, unit_roundoff) + (unit_roundoff < kFp32UnitRoundoff ? gamma(n, unit_roundoff) : 0.0);
}

LargeVector<Interval> grouped_product(const GroupedProduct<Interval>& product) {
  if (auto taken_over = product_by_engine<Interval>(product, run<BoundedRows>)) return std::move(*taken_over);
  const PhaseTimer timer("bounded products");
  return run<BoundedRows>(product);
}

LargeVector<PredictedValue> grouped_product(const GroupedProduct<PredictedValue>& product) {
  if (auto taken_over = product_by_engine<PredictedValue>(product, run<PredictedRows>)) return std::move(*taken_over);
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

bool use_product_kernels(const char* name) {
  const auto* found = *name == '\0' ? &product_kernels() : product_kernels(name);
  if (found != nullptr) selected_kernels = found;
  return found != nullptr;
}

}  // namespace assay
