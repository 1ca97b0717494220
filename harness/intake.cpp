#include "harness/intake.h"

#include <algorithm>

#include <fmt/format.h>

namespace assay {

Intake::Intake(const Problem& problem, const FieldSet& fields) : sizes_(problem.sizes()), fields_(fields) {
  upstream.fields = &fields;
}

void Intake::check(Field field, FieldResult& result) {
  const FieldRow& what = row(field);
  const Tensor& tensor = fields_.at(field);
  const Shape expected = expected_shape(field, sizes_);
  if (tensor.shape() != expected) {
    result.verdict = Verdict::WrongShape;
    result.notes.push_back(
        fmt::format("expected shape {}, found {}", to_string(expected), to_string(tensor.shape())));
  } else if (tensor.dtype() != what.dtype) {
    result.verdict = Verdict::WrongDtype;
    result.notes.push_back(
        fmt::format("expected {}, found {}", row(what.dtype).name, row(tensor.dtype()).name));
  } else if (in_range(field, tensor, result)) {
    upstream.usable[static_cast<std::size_t>(field)] = true;
  }
}

bool Intake::in_range(Field field, const Tensor& tensor, FieldResult& result) {
  std::int64_t limit = 0;
  if (field == Field::selected_experts)
    limit = sizes_.config.num_experts;
  else if (field == Field::gather_indices)
    limit = sizes_.slots();
  else
    return true;
  const auto values = tensor.as<std::int32_t>();
  const auto bad = std::ranges::find_if(values, [&](std::int32_t v) { return v < 0 || v >= limit; });
  if (bad == values.end()) return true;
  result.verdict = Verdict::Failed;
  result.isolated.verdict = Verdict::Failed;
  result.isolated.elements = tensor.size();
  result.isolated.rejected =
      std::ranges::count_if(values, [&](std::int32_t v) { return v < 0 || v >= limit; });
  result.notes.push_back(
      fmt::format("element {} is {}, expected 0..{}; later stages use the reference's routing",
                  bad - values.begin(), *bad, limit - 1));
  return false;
}

}  // namespace assay
