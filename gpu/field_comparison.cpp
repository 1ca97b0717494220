#include "gpu/field_comparison.h"

#include <algorithm>
#include <memory>

#include "gpu/buffer.h"
#include "gpu/comparison_kernels.h"
#include "gpu/device_problem.h"
#include "gpu/host_link.h"
#include "gpu/pipeline.h"

namespace assay {
namespace gpu {
namespace {

static_assert(sizeof(DeviceInterval) == sizeof(Interval) && offsetof(DeviceInterval, noise) == offsetof(Interval, noise));
static_assert(sizeof(RowTotals) == sizeof(ComparisonTotals) && offsetof(RowTotals, z2_of_rounding) == offsetof(ComparisonTotals, z2_of_rounding));
static_assert(kHistogramBuckets == kUlpBuckets);

class Comparer {
 public:
  FieldComparison compare(std::span<const Bf16> out, std::span<const Interval> reference, std::int64_t rows) {
    const auto elements = static_cast<std::int64_t>(out.size());
    ASSAY_CHECK(out.size() == reference.size() && rows >= 0 && (rows == 0 ? elements == 0 : elements % rows == 0),
                "expected as many intervals as values, in rows of equal length");
    FieldComparison result;
    if (elements == 0) return result;
    const Buffer<std::uint16_t> values("values", elements);
    const Buffer<DeviceInterval> intervals("intervals", elements);
    const Buffer<RowTotals> totals("row totals", rows);
    const Buffer<unsigned long long> ulps("ulp histogram", kHistogramBuckets);
    ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
    ASSAY_CUDA(cudaMemsetAsync(ulps.data(), 0, ulps.bytes(), stream_));
    link_.upload(values.data(), out.data(), values.bytes(), stream_);
    link_.upload(intervals.data(), reference.data(), intervals.bytes(), stream_);
    compare_rows(values.data(), intervals.data(), rows, elements / rows, totals.data(), ulps.data(), stream_);
    ASSAY_CUDA(cudaStreamSynchronize(stream_));
    result.rows.resize(static_cast<std::size_t>(rows));
    totals.download(result.rows.data());
    ulps.download(result.ulps.data());
    totals.verify_guards();
    ulps.verify_guards();
    for (const auto& row : result.rows) add(result.all, row);
    return result;
  }

 private:
  static void add(ComparisonTotals& to, const ComparisonTotals& from) {
    to.rejected += from.rejected;
    to.non_finite += from.non_finite;
    to.mismatched += from.mismatched;
    to.flipped += from.flipped;
    to.max_ratio = std::max(to.max_ratio, from.max_ratio);
    to.max_contract_ulps = std::max(to.max_contract_ulps, from.max_contract_ulps);
    to.flips_expected += from.flips_expected;
    to.excess += from.excess;
    to.excess_expected += from.excess_expected;
    to.z2 += from.z2;
    to.z2_of_rounding += from.z2_of_rounding;
  }

  Stream stream_;
  HostLink link_;
};

}  // namespace
}  // namespace gpu

std::optional<FieldComparer> gpu_field_comparer() {
  if (gpu_unavailable()) return std::nullopt;
  const auto comparer = std::make_shared<gpu::Comparer>();
  return [comparer](std::span<const Bf16> out, std::span<const Interval> reference, std::int64_t rows) { return comparer->compare(out, reference, rows); };
}

}  // namespace assay
