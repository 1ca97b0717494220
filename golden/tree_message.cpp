#include "golden/tree_message.h"

#include <cstring>
#include <type_traits>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

enum class MessageKind : std::uint8_t { Tree = 0x54, Refusal = 0x52 };

/// Both directions walk the members in the order of `members`, so they cannot disagree.
struct Encoder {
  std::string bytes;

  template <class T>
    requires(std::is_arithmetic_v<T> || std::is_enum_v<T>)
  void operator()(const T& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void operator()(const std::string& text) {
    (*this)(std::uint64_t{text.size()});
    bytes += text;
  }
  template <class T>
  void operator()(const std::vector<T>& list) {
    (*this)(std::uint64_t{list.size()});
    for (const auto& one : list) (*this)(one);
  }
  template <class T>
    requires std::is_class_v<T>
  void operator()(const T& value) {
    members(*this, value);
  }
};

struct Decoder {
  std::span<const std::byte> rest;
  int depth = 0;

  [[noreturn]] static void fail() { throw InputError("the description of its contents is damaged"); }

  std::span<const std::byte> take(std::size_t count) {
    if (count > rest.size()) fail();
    const auto taken = rest.first(count);
    rest = rest.subspan(count);
    return taken;
  }
  template <class T>
    requires std::is_arithmetic_v<T>
  void operator()(T& value) {
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
  }
  void operator()(bool& value) {
    std::uint8_t byte = 0;
    (*this)(byte);
    if (byte > 1) fail();
    value = byte == 1;
  }
  template <class T>
    requires std::is_enum_v<T>
  void bounded(T& value, T last) {
    std::underlying_type_t<T> number{};
    (*this)(number);
    if (number > static_cast<std::underlying_type_t<T>>(last)) fail();
    value = static_cast<T>(number);
  }
  void operator()(StoredAs& value) { bounded(value, StoredAs::Other); }
  void operator()(ObjectKind& value) { bounded(value, ObjectKind::Foreign); }
  void operator()(StoredAttribute::Kind& value) { bounded(value, StoredAttribute::Kind::Unreadable); }
  /// A length: every item takes at least one byte of the rest.
  std::size_t length() {
    std::uint64_t count = 0;
    (*this)(count);
    if (count > rest.size()) fail();
    return count;
  }
  void operator()(std::string& text) {
    const auto bytes = take(length());
    text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  template <class T>
  void operator()(std::vector<T>& list) {
    const auto count = length();
    // Grown one by one: a false count must not allocate more than the message pays for.
    for (std::size_t i = 0; i < count; ++i) (*this)(list.emplace_back());
  }
  template <class T>
    requires std::is_class_v<T>
  void operator()(T& value) {
    constexpr int deeper = std::is_same_v<T, StoredObject> ? 1 : 0;
    depth += deeper;
    if (depth > kDeepestGroup + 1) fail();
    members(*this, value);
    depth -= deeper;
  }
};

template <class Coder, class T>
  requires std::is_same_v<std::remove_const_t<T>, StoredAttribute>
void members(Coder& code, T& attribute) {
  code(attribute.name);
  code(attribute.kind);
  code(attribute.text);
  code(attribute.integers);
  code(attribute.real);
}
template <class Coder, class T>
  requires std::is_same_v<std::remove_const_t<T>, StoredStretch>
void members(Coder& code, T& stretch) {
  code(stretch.address);
  code(stretch.bytes);
  code(stretch.skipped);
}
template <class Coder, class T>
  requires std::is_same_v<std::remove_const_t<T>, StoredFilter>
void members(Coder& code, T& filter) {
  code(filter.id);
  code(filter.first);
  code(filter.name);
}
template <class Coder, class T>
  requires std::is_same_v<std::remove_const_t<T>, StoredObject>
void members(Coder& code, T& object) {
  code(object.name);
  code(object.kind);
  code(object.refusal);
  code(object.attributes);
  code(object.children);
  code(object.shape);
  code(object.stored);
  code(object.type_name);
  code(object.element_size);
  code(object.big_endian);
  code(object.chunk);
  code(object.filters);
  code(object.stretches);
}

}  // namespace

std::string encode(const StoredObject& root) {
  Encoder encoder;
  encoder(static_cast<std::uint8_t>(MessageKind::Tree));
  encoder(root);
  return std::move(encoder.bytes);
}

std::string encode_refusal(const std::string& sentence) {
  Encoder encoder;
  encoder(static_cast<std::uint8_t>(MessageKind::Refusal));
  encoder(sentence);
  return std::move(encoder.bytes);
}

StoredObject decode(std::span<const std::byte> message) {
  Decoder decoder{message};
  std::uint8_t kind = 0;
  decoder(kind);
  if (kind == static_cast<std::uint8_t>(MessageKind::Refusal)) {
    std::string sentence;
    decoder(sentence);
    throw InputError(sentence);
  }
  if (kind != static_cast<std::uint8_t>(MessageKind::Tree)) Decoder::fail();
  StoredObject root;
  decoder(root);
  if (!decoder.rest.empty() || root.kind != ObjectKind::Group) Decoder::fail();
  return root;
}

}  // namespace assay::hdf5
