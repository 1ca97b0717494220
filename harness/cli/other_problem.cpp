#include "harness/cli/other_problem.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace assay::cli {
namespace {

std::string differing_sizes(const Problem& problem, const Problem& other) {
  std::vector<std::string> found;
  const auto add = [&](std::string_view name, const auto& theirs, const auto& ours) {
    if (theirs != ours) found.push_back(fmt::format("{} {} (here {})", name, theirs, ours));
  };
  add("tokens", other.sizes().tokens, problem.sizes().tokens);
  std::vector<std::string> theirs;
  for_each_member(other.config,
                  [&](std::string_view, const auto& value) { theirs.push_back(fmt::format("{}", value)); });
  std::size_t next = 0;
  for_each_member(problem.config, [&](std::string_view name, const auto& value) {
    add(name, theirs[next++], fmt::format("{}", value));
  });
  return fmt::format("{}", fmt::join(found, ", "));
}

bool same_bits(std::span<const std::byte> one, std::span<const std::byte> other) {
  return std::ranges::equal(one, other);
}

bool not_to_compare(const Problem& problem, const Problem& other, Field field) {
  const auto& ours = problem.generators[static_cast<std::size_t>(field)];
  const auto& theirs = other.generators[static_cast<std::size_t>(field)];
  // The program knows no folder of the file's checkpoint.
  return (ours && theirs && *ours == *theirs) || (theirs && theirs->fill == "checkpoint");
}

/// "another down_proj (experts 0, 1)"
std::string differing_experts(const Problem& problem, const Problem& other, Field field) {
  constexpr std::size_t kMostNamed = 8;
  std::vector<std::int64_t> experts;
  for (std::int64_t expert = 0; expert < problem.config.num_experts; ++expert)
    if (!same_bits(std::as_bytes(problem.experts(field, expert).values),
                   std::as_bytes(other.experts(field, expert).values)))
      experts.push_back(expert);
  if (experts.empty()) return "";
  const bool all = std::ssize(experts) == problem.config.num_experts;
  const auto more = experts.size() - std::min(experts.size(), kMostNamed);
  experts.resize(experts.size() - more);
  return fmt::format(
      "another {} ({})", name(field),
      all ? "every expert"
          : fmt::format("expert{} {}{}", experts.size() == 1 ? "" : "s", fmt::join(experts, ", "),
                        more > 0 ? fmt::format(" and {} more", more) : ""));
}

}  // namespace

std::string difference_of_problem(const Problem& problem, const GoldenFile& file) {
  const Problem& other = file.problem;
  if (auto sizes = differing_sizes(problem, other); !sizes.empty()) return sizes;
  std::vector<std::string> found;
  const std::array given = {
      std::tuple(Field::input_hidden_states, &problem.input, &other.input),
      std::tuple(Field::d_hidden_states, &problem.output_gradient, &other.output_gradient),
      std::tuple(Field::gate, &problem.gate, &other.gate)};
  // A tensor that one of the two does not have says nothing.
  for (const auto& [field, ours, theirs] : given)
    if (ours->shape() == theirs->shape() && !same_bits(ours->bytes(), theirs->bytes()))
      found.push_back(fmt::format("another {}", name(field)));
  for (const FieldRow& field : kFields)
    if (other.previous.has(field.id) &&
        (!problem.previous.has(field.id) ||
         !same_bits(problem.previous.at(field.id).bytes(), other.previous.at(field.id).bytes())))
      found.push_back(fmt::format("another {} of before", field.name));
  if (problem.experts && other.experts)
    for (const Field field : {Field::gate_up_proj, Field::down_proj})
      if (!not_to_compare(problem, other, field))
        if (auto experts = differing_experts(problem, other, field); !experts.empty())
          found.push_back(std::move(experts));
  return fmt::format("{}", fmt::join(found, " and "));
}

}  // namespace assay::cli
