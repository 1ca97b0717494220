#include "gpu/selfcheck_compare.h"

#include <cstdio>
#include <cstring>

namespace assay::gpu {
namespace {

std::int64_t differing(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return -1;
  if (a.size() == 0 || std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0) return 0;
  const std::size_t size = row(a.dtype()).size;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < a.bytes().size(); i += size)
    count += std::memcmp(a.bytes().data() + i, b.bytes().data() + i, size) != 0;
  return count;
}

}  // namespace

std::int64_t compare_candidates(const char* what, const Candidate& a, const Candidate& b, bool expect_equal) {
  std::int64_t total = 0;
  std::int64_t elements = 0;
  for (const auto& field : kFields) {
    if (!a.fields.has(field.id) || !b.fields.has(field.id)) continue;
    const std::int64_t count = differing(a.fields.at(field.id), b.fields.at(field.id));
    elements += a.fields.at(field.id).size();
    total += count;
    if (count != 0)
      std::printf("    %-28s %-24s %lld of %lld differ\n", what, field.name.data(),
                  static_cast<long long>(count), static_cast<long long>(a.fields.at(field.id).size()));
  }
  if (total == 0) std::printf("    %-28s equal, %lld elements\n", what, static_cast<long long>(elements));
  return expect_equal ? total : 0;
}

}  // namespace assay::gpu
