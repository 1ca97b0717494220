// Slots that the merge, or its gradient, lost: how often each slot of a token was added, by least squares,
// and what the lost ones have in common; and sums in no fixed order.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/where.h"
#include "reference_cpu/causes/causes_merge.h"

namespace assay {
namespace {

constexpr std::int64_t kFittedColumns = 256;
constexpr std::size_t kFittedTokens = 512;
constexpr double kWhole = 0.2;  // largest distance of a fitted count from 0 or 1
constexpr std::int64_t kMostSlots = 16;
constexpr std::int64_t kMostOrdered = 10;   // slots whose orders are walked
constexpr std::size_t kFewestOrdered = 64;  // elements that must all be sums in some order

/// Solves the normal equations of at most kMostSlots unknowns; empty where they are singular.
std::vector<double> solved(std::vector<std::vector<double>> matrix, std::vector<double> right) {
  const std::size_t n = right.size();
  for (std::size_t i = 0; i < n; ++i) {
    std::size_t pivot = i;
    for (std::size_t r = i; r < n; ++r)
      if (std::fabs(matrix[r][i]) > std::fabs(matrix[pivot][i])) pivot = r;
    if (!(std::fabs(matrix[pivot][i]) > 1e-30)) return {};
    std::swap(matrix[i], matrix[pivot]);
    std::swap(right[i], right[pivot]);
    for (std::size_t r = 0; r < n; ++r) {
      if (r == i) continue;
      const double factor = matrix[r][i] / matrix[i][i];
      for (std::size_t c = i; c < n; ++c) matrix[r][c] -= factor * matrix[i][c];
      right[r] -= factor * right[i];
    }
  }
  for (std::size_t i = 0; i < n; ++i) right[i] /= matrix[i][i];
  return right;
}

/// Which slots of a token were not added; nothing where the fit is no whole numbers.
std::vector<std::int64_t> lost_of(const Evidence& evidence, const SumOfSlots& sum, std::int64_t token,
                                  bool& clear) {
  const std::int64_t step = std::max<std::int64_t>(1, evidence.width / kFittedColumns);
  const auto count = static_cast<std::size_t>(sum.top_k);
  std::vector<std::vector<double>> matrix(count, std::vector<double>(count));
  std::vector<double> right(count);
  std::vector<double> terms(count);
  for (std::int64_t c = 0; c < evidence.width; c += step) {
    const double out = to_float(evidence.out[index(evidence, token, c)]);
    for (std::size_t j = 0; j < count; ++j) terms[j] = sum.term(token, static_cast<std::int64_t>(j), c);
    if (!std::isfinite(out)) continue;
    for (std::size_t i = 0; i < count; ++i) {
      right[i] += terms[i] * out;
      for (std::size_t j = 0; j < count; ++j) matrix[i][j] += terms[i] * terms[j];
    }
  }
  const auto times = solved(std::move(matrix), std::move(right));
  std::vector<std::int64_t> lost;
  clear = !times.empty();
  for (std::size_t j = 0; j < times.size(); ++j) {
    clear = clear && (std::fabs(times[j]) < kWhole || std::fabs(times[j] - 1.0) < kWhole);
    if (std::fabs(times[j]) < kWhole) lost.push_back(static_cast<std::int64_t>(j));
  }
  return lost;
}

std::vector<std::int64_t> sorted(const std::set<std::int64_t>& from) { return {from.begin(), from.end()}; }

/// The place of every flat slot among its expert's rows.
std::vector<std::int64_t> ranks_in_expert(const Routing& routing) {
  std::vector<std::int64_t> rank(routing.gather.size());
  for (std::size_t e = 0; e + 1 < routing.offsets.size(); ++e)
    for (std::int64_t r = routing.offsets[e]; r < routing.offsets[e + 1]; ++r)
      rank[static_cast<std::size_t>(routing.gather[static_cast<std::size_t>(r)])] = r - routing.offsets[e];
  return rank;
}

/// Whether some order of additions in bf16 gives `sum`.
bool sum_in_any_order(std::span<const float> terms, float sum) {
  std::vector<std::vector<float>> of(std::size_t{1} << terms.size());  // sums of every subset
  of[0].push_back(0.0f);
  for (std::size_t have = 0; have + 1 < of.size(); ++have) {
    std::ranges::sort(of[have]);
    of[have].erase(std::ranges::unique(of[have]).begin(), of[have].end());
    for (std::size_t j = 0; j < terms.size(); ++j)
      if ((have >> j & 1u) == 0)
        for (const float part : of[have])
          of[have | std::size_t{1} << j].push_back(kept_as_bf16(part + terms[j]));
  }
  return std::ranges::find(of.back(), sum) != of.back().end();
}

}  // namespace

void propose_lost_slots(const Evidence& evidence, const ErrorPlace& place, const SumOfSlots& sum,
                        std::vector<Proposal>& all) {
  const std::int64_t top_k = sum.top_k;
  if (top_k < 2 || top_k > kMostSlots || place.window.rows.size() > kFittedTokens) return;
  const Routing& routing = evidence.layer->routing;
  const auto flat = [top_k](std::int64_t t, std::int64_t j) {
    return static_cast<std::size_t>(t * top_k + j);
  };
  std::set<std::int64_t> lost;  // flat slots
  std::size_t unclear = 0;
  for (const auto t : place.window.rows) {
    bool clear = false;
    for (const auto j : lost_of(evidence, sum, t, clear))
      if (clear) lost.insert(t * top_k + j);
    unclear += !clear;
  }
  if (lost.empty() || 2 * unclear > place.window.rows.size()) return;
  const auto offer = [&](std::string sentence, const LostSlot& which, bool names_place = false) {
    auto proposal = sum.without(std::move(sentence), which);
    proposal.names_place = names_place;
    all.push_back(std::move(proposal));
  };
  std::set<std::int64_t> numbers;
  std::set<std::int64_t> experts;
  for (const auto s : lost) {
    numbers.insert(s % top_k);
    experts.insert(routing.selected[static_cast<std::size_t>(s)]);
  }
  // A rule has to lose all that is lost and keep all that is kept, in the tokens that are wrong.
  const auto fits = [&](auto which) {
    return std::ranges::all_of(place.window.rows, [&](std::int64_t t) {
      for (std::int64_t j = 0; j < top_k; ++j)
        if (which(t, j) != lost.contains(t * top_k + j)) return false;
      return true;
    });
  };
  const auto by_number = [numbers](std::int64_t, std::int64_t j) { return numbers.contains(j); };
  const auto by_expert = [experts, &routing, flat](std::int64_t t, std::int64_t j) {
    return experts.contains(routing.selected[flat(t, j)]);
  };
  if (numbers.size() > 1 && fits(by_number))
    offer(fmt::format("{} are left out of the sum", listed("slot", "slots", sorted(numbers), top_k)),
          by_number);
  if (fits(by_expert))
    offer(fmt::format("the slots of {} are left out of the sum",
                      listed("expert", "experts", sorted(experts), evidence.layer->config().num_experts)),
          by_expert, true);
  const auto rank = std::make_shared<const std::vector<std::int64_t>>(ranks_in_expert(routing));
  std::int64_t capacity = std::numeric_limits<std::int64_t>::max();
  for (const auto s : lost) capacity = std::min(capacity, (*rank)[static_cast<std::size_t>(s)]);
  const auto by_rank = [rank, capacity, flat](std::int64_t t, std::int64_t j) {
    return (*rank)[flat(t, j)] >= capacity;
  };
  if (capacity > 0 && fits(by_rank))
    offer(fmt::format("of each expert's rows only the first {} are added", capacity), by_rank, true);
  const auto one = *lost.begin();
  offer(
      fmt::format("{} left out of the sum (token {}: slot {})",
                  lost.size() == 1 ? "1 slot is" : fmt::format("{} slots are", lost.size()), one / top_k,
                  one % top_k),
      [lost, top_k](std::int64_t t, std::int64_t j) { return lost.contains(t * top_k + j); }, true);
}

void propose_any_order(const Evidence& evidence, const ErrorPlace& place, const Merging& merging,
                       std::vector<Proposal>& all) {
  const std::int64_t top_k = merging.top_k();
  const Window& sample = place.sample;
  if (top_k < 3 || top_k > kMostOrdered || sample.size() < kFewestOrdered) return;
  const auto& values = evidence.input(Field::hidden_states_unpermute);
  // So flexible a hypothesis holds for every element or not at all.
  const auto reached = [&evidence, &values, merging, top_k](std::int64_t t, std::int64_t c) {
    const Slots slots = merging.slots(t);
    std::vector<float> terms;
    for (std::int64_t j = 0; j < top_k; ++j)
      terms.push_back(kept_as_bf16(
          values[static_cast<std::size_t>(slots.rows[static_cast<std::size_t>(j)] * evidence.width + c)]
              .value *
          slots.weights[static_cast<std::size_t>(j)]));
    return sum_in_any_order(terms, to_float(evidence.out[index(evidence, t, c)]));
  };
  std::size_t tried = 0;
  const std::size_t step = std::max<std::size_t>(1, sample.size() / (4 * kFewestOrdered)) | 1u;
  for (std::size_t i = 0; i < sample.size(); i += step, ++tried)
    if (!reached(sample.rows[i / sample.columns.size()], sample.columns[i % sample.columns.size()])) return;
  if (tried < kFewestOrdered) return;
  all.push_back({"bf16_merge_any_order", "slots are added in bf16, in no fixed order",
                 by_element([&evidence, reached](std::int64_t t, std::int64_t c) {
                   const auto at = index(evidence, t, c);
                   const bool as_declared = evidence.out[at] == evidence.reference[at];
                   return !as_declared && reached(t, c) ? evidence.out[at] : evidence.reference[at];
                 })});
}

}  // namespace assay
