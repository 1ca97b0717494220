#include "harness/cli/oracle_check.h"

#include <chrono>

#include <fmt/format.h>

#include "harness/judge/compare.h"
#include "harness/judge/headline.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {

std::optional<CaseResult> check_oracle(const Problem& problem, const Candidate& candidate) {
  const auto start = std::chrono::steady_clock::now();
  Upstream upstream;
  FieldSet fields;
  CaseResult result;
  for (const auto& what : kFields) {
    if (what.group != Group::Forward) continue;  // the exporter's float64 run is a forward pass
    FieldResult field;
    field.field = what.id;
    const bool routing = what.dtype == DType::Int32 && candidate.fields.has(what.id);
    if (routing)
      fields.set(what.id, candidate.fields.at(what.id));
    else if (candidate.oracle.has(what.id))
      fields.set(what.id, candidate.oracle.at(what.id));
    if (fields.has(what.id)) {
      const auto& tensor = fields.at(what.id);
      const Shape expected = expected_shape(what.id, problem.sizes());
      const bool right =
          tensor.shape() == expected && tensor.dtype() == (routing ? DType::Int32 : DType::Float64);
      upstream.usable[static_cast<std::size_t>(what.id)] = right;
      if (!right) {
        field.verdict = Verdict::WrongShape;
        field.notes.push_back(fmt::format("expected float64 of shape {}, found {} of {}", to_string(expected),
                                          row(tensor.dtype()).name, to_string(tensor.shape())));
      } else if (!routing) {
        field.verdict = Verdict::Passed;
      }
    }
    result.fields.push_back(field);
  }
  upstream.fields = &fields;
  if (!upstream.has(Field::hidden_states) && !upstream.has(Field::router_logits)) return std::nullopt;

  const auto& contract = find_contract("fp64");
  const auto reference = make_reference(problem, upstream, contract, {}, false);
  for (auto& field : result.fields) {
    if (field.verdict != Verdict::Passed) continue;
    const CompareContext context{field.field, problem.sizes(), &reference->routing()};
    field.isolated = compare_float64(
        context, fields.at(field.field).as<double>(),
        reference->bounded(field.field, Mode::Isolated, all_rows(field.field, problem.sizes())));
    field.verdict = field.isolated.verdict;
    result.verdict = worst(result.verdict, field.verdict);
  }
  result.problem = problem.name;
  result.candidate = candidate.name + " /oracle";
  result.producer = candidate.producer + ", float64";
  result.device = candidate.device;
  result.contract = contract.name;
  result.config = problem.config;
  result.tokens = problem.sizes().tokens;
  result.seed = problem.seed;
  result.first_own_error = first_own_error(result);
  result.headline = headline(result);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace assay::cli
