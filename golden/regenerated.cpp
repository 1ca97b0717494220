#include "golden/regenerated.h"

#include <atomic>
#include <exception>

#include <fmt/format.h>

#include "golden/sha256.h"
#include "harness/contract/error.h"

namespace assay {
namespace {

/// Loads the experts of one weight.
class OneWeight {
 public:
  OneWeight(Field field, WeightSource source, ExpertRegenerator regenerate)
      : field_(field),
        source_(std::move(source)),
        regenerate_(std::move(regenerate)),
        shape_(source_.stored ? source_.stored->shape() : source_.regenerated->generator.shape),
        checked_(static_cast<std::size_t>(shape_[0])) {
    if (!source_.stored && !regenerate_)
      throw InputError(
          fmt::format("{} is to be regenerated, and no generator is at hand", dataset_path(field)));
  }

  ExpertMatrix load(std::int64_t expert) {
    if (expert < 0 || expert >= shape_[0])
      throw InputError(
          fmt::format("{} has {} experts; there is no expert {}", name(field_), shape_[0], expert));
    const auto at = static_cast<std::size_t>(expert);
    const auto count = static_cast<std::size_t>(shape_[1] * shape_[2]);
    if (source_.stored) return {source_.stored->as<Bf16>().subspan(at * count, count), source_.stored};

    const auto& [generator, text, hashes] = *source_.regenerated;
    auto matrix = regenerate_(generator, field_, expert);
    if (matrix.values.size() != count)
      throw InputError(fmt::format("{}: expert {} was regenerated with {} values, expected {}", name(field_),
                                   expert, matrix.values.size(), count));
    if (!hashes.empty() && !checked_[at].load(std::memory_order_relaxed)) {
      const auto found = sha256_hex(std::as_bytes(matrix.values));
      if (found != hashes[at])
        throw InputError(fmt::format("{}: the regenerated expert {} has SHA-256 {}, the file says {}",
                                     dataset_path(field_), expert, found, hashes[at]));
      checked_[at].store(true, std::memory_order_relaxed);
    }
    return matrix;
  }

 private:
  Field field_;
  WeightSource source_;
  ExpertRegenerator regenerate_;
  Shape shape_;
  std::vector<std::atomic<bool>> checked_;
};

}  // namespace

ExpertLoader expert_loader(WeightSource gate_up, WeightSource down, ExpertRegenerator regenerate) {
  auto first = std::make_shared<OneWeight>(Field::gate_up_proj, std::move(gate_up), regenerate);
  auto second = std::make_shared<OneWeight>(Field::down_proj, std::move(down), regenerate);
  return [first, second](Field field, std::int64_t expert) {
    return (field == Field::gate_up_proj ? first : second)->load(expert);
  };
}

std::vector<std::string> expert_hashes(const ExpertLoader& experts, Field field, std::int64_t num_experts) {
  std::vector<std::string> hashes(static_cast<std::size_t>(num_experts));
  std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t expert = 0; expert < num_experts; ++expert) {
    try {
      hashes[static_cast<std::size_t>(expert)] = sha256_hex(std::as_bytes(experts(field, expert).values));
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
  return hashes;
}

}  // namespace assay
