// One share of a run's cases, so that several machines make one report.
#pragma once

#include <cstddef>
#include <string>

namespace CLI {
class App;
}

namespace assay::cli {

/// Share `index` of `of`, from 1: every of-th case. Which share a case is in depends on its number alone.
struct Shard {
  std::size_t index = 1;
  std::size_t of = 1;
  bool takes(std::size_t number) const { return number % of == index - 1; }
  bool whole() const { return of == 1; }
};

/// "2/3", or "auto": SLURM_ARRAY_TASK_ID .. _COUNT and _MIN, CI_NODE_INDEX and CI_NODE_TOTAL (GitLab),
/// ASSAY_SHARD. Throws UsageError.
Shard parse_shard(const std::string& text);

/// "2 of 3", in a report's environment under this name.
inline constexpr const char* kShardFact = "shard";
std::string in_words(const Shard& shard);
/// Reads what in_words writes; throws InputError.
Shard shard_of_words(const std::string& words, const std::string& source);

}  // namespace assay::cli
