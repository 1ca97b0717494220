#include "harness/contract/field_set.h"

#include <utility>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay {

const Tensor& FieldSet::at(Field field) const {
  const auto& tensor = tensors_[index(field)];
  if (!tensor) throw InputError(fmt::format("field {} is not materialised", name(field)));
  return *tensor;
}

Tensor& FieldSet::at(Field field) { return const_cast<Tensor&>(std::as_const(*this).at(field)); }

}  // namespace assay
