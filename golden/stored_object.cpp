#include "golden/stored_object.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

using AttributeKind = StoredAttribute::Kind;

/// The attribute, if it is there. Throws InputError where the library could not read it.
const StoredAttribute* attribute(const StoredObject& object, const char* name, const std::string& where) {
  const auto found =
      std::ranges::lower_bound(object.attributes, std::string_view(name), {}, &StoredAttribute::name);
  if (found == object.attributes.end() || found->name != name) return nullptr;
  if (found->kind == AttributeKind::Unreadable)
    throw InputError(fmt::format("cannot read attribute {} of {}: {}", name, where, found->text));
  return &*found;
}

void require(bool good, const char* name, const std::string& where, const char* expected) {
  if (!good)
    throw InputError(fmt::format("cannot read attribute {} of {}: expected {}", name, where, expected));
}

bool is_integer(const StoredAttribute& attribute) {
  return attribute.kind == AttributeKind::Signed || attribute.kind == AttributeKind::Unsigned;
}

constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

}  // namespace

const StoredObject* find(const StoredObject& group, std::string_view name) {
  const auto found = std::ranges::lower_bound(group.children, name, {}, &StoredObject::name);
  return found == group.children.end() || found->name != name ? nullptr : &*found;
}

std::optional<std::string> read_string(const StoredObject& object, const char* name,
                                       const std::string& where) {
  const auto* found = attribute(object, name, where);
  if (found == nullptr) return std::nullopt;
  require(found->kind == AttributeKind::Text, name, where, "one string");
  return found->text;
}

std::optional<std::int64_t> read_int64(const StoredObject& object, const char* name,
                                       const std::string& where) {
  const auto* found = attribute(object, name, where);
  if (found == nullptr) return std::nullopt;
  require(is_integer(*found) && found->integers.size() == 1, name, where, "one integer");
  const auto value = found->integers.front();
  require(found->kind == AttributeKind::Signed || value <= kLargest, name, where, "an integer below 2^63");
  return static_cast<std::int64_t>(value);
}

std::optional<std::uint64_t> read_uint64(const StoredObject& object, const char* name,
                                         const std::string& where) {
  const auto* found = attribute(object, name, where);
  if (found == nullptr) return std::nullopt;
  require(is_integer(*found) && found->integers.size() == 1, name, where, "one integer");
  const auto value = found->integers.front();
  require(found->kind == AttributeKind::Unsigned || value <= kLargest, name, where,
          "an integer that is not negative");
  return value;
}

std::optional<double> read_double(const StoredObject& object, const char* name, const std::string& where) {
  const auto* found = attribute(object, name, where);
  if (found == nullptr) return std::nullopt;
  require(found->kind == AttributeKind::Real, name, where, "one float64");
  return found->real;
}

std::optional<Shape> read_shape(const StoredObject& object, const char* name, const std::string& where) {
  const auto* found = attribute(object, name, where);
  if (found == nullptr) return std::nullopt;
  require(is_integer(*found), name, where, "a list of integers");
  Shape shape;
  for (const auto value : found->integers) {
    require(value <= kLargest, name, where, "sizes of at least 0");
    shape.push_back(static_cast<std::int64_t>(value));
  }
  return shape;
}

std::string attribute_text(const StoredAttribute& attribute) {
  switch (attribute.kind) {
    case AttributeKind::Text: return attribute.text;
    case AttributeKind::Real: return fmt::format("{:.17g}", attribute.real);
    case AttributeKind::Unreadable: return fmt::format("({})", attribute.text);
    case AttributeKind::Signed:
    case AttributeKind::Unsigned: break;
  }
  std::vector<std::string> numbers;
  for (const auto value : attribute.integers)
    numbers.push_back(attribute.kind == AttributeKind::Signed
                          ? fmt::format("{}", static_cast<std::int64_t>(value))
                          : fmt::format("{}", value));
  return numbers.size() == 1 ? numbers.front() : fmt::format("[{}]", fmt::join(numbers, ", "));
}

}  // namespace assay::hdf5
