#include <fmt/format.h>
#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "harness/contract/error.h"
#include "harness/host/json_text.h"
#include "reports/json.h"
#include "reports/json_members.h"

namespace assay {
namespace {

using ParsedJson = nlohmann::json;

/// A value and where it stands: "cases[0].fields[2].verdict".
struct JsonPlace {
  const ParsedJson& value;
  std::string path;

  [[noreturn]] void expected(std::string_view what) const {
    std::string found = value.dump(-1, ' ', true, ParsedJson::error_handler_t::replace);
    if (found.size() > 40) found = found.substr(0, 37) + "...";
    throw InputError(
        fmt::format("expected {} at {}, found {}", what, path.empty() ? "the top" : path, found));
  }
  JsonPlace member(const char* name) const {
    if (!value.is_object()) expected("an object");
    const auto found = value.find(name);
    if (found == value.end())
      throw InputError(fmt::format("expected a member \"{}\" in {}, found none", name,
                                   path.empty() ? "the top object" : path));
    return {*found, path.empty() ? name : fmt::format("{}.{}", path, name)};
  }
  JsonPlace element(std::size_t i) const { return {value[i], fmt::format("{}[{}]", path, i)}; }
};

void read(const JsonPlace& place, bool& out) {
  if (!place.value.is_boolean()) place.expected("true or false");
  out = place.value.get<bool>();
}

void read(const JsonPlace& place, std::string& out) {
  if (!place.value.is_string()) place.expected("a string");
  out = place.value.get<std::string>();
}

void read(const JsonPlace& place, double& out) {
  if (place.value.is_number()) {
    out = place.value.get<double>();
    return;
  }
  const std::string text = place.value.is_string() ? place.value.get<std::string>() : "";
  if (text == "NaN")
    out = std::numeric_limits<double>::quiet_NaN();
  else if (text == "Infinity")
    out = std::numeric_limits<double>::infinity();
  else if (text == "-Infinity")
    out = -std::numeric_limits<double>::infinity();
  else
    place.expected("a number, \"NaN\", \"Infinity\" or \"-Infinity\"");
}

/// A JSON integer or a string of digits, refused where it does not fit: nothing wraps around.
template <class Integer>
  requires std::integral<Integer> && (!std::same_as<Integer, bool>)
void read(const JsonPlace& place, Integer& out) {
  const bool whole = place.value.is_number_integer();
  const std::string digits = whole                     ? place.value.dump()
                             : place.value.is_string() ? place.value.get<std::string>()
                                                       : "";
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size())
    place.expected(fmt::format("an integer of {} bits{}", 8 * sizeof(Integer),
                               std::unsigned_integral<Integer> ? ", not negative" : ""));
}

void read(const JsonPlace& place, Field& out) {
  std::string text;
  read(place, text);
  const auto field = find_field(text);
  if (!field) place.expected("the name of a field");
  out = *field;
}

void read(const JsonPlace& place, DType& out) {
  std::string text;
  read(place, text);
  const auto* const found = std::ranges::find(kDTypes, text, &DTypeRow::name);
  if (found == std::end(kDTypes)) place.expected("the name of a dtype");
  out = found->dtype;
}

/// An enumerator by its name; `last` is the enum's last one.
template <class Enum>
void read_named(const JsonPlace& place, Enum& out, Enum last, std::string_view what) {
  std::string text;
  read(place, text);
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    out = static_cast<Enum>(i);
    if (name(out) == text) return;
  }
  place.expected(what);
}

void read(const JsonPlace& place, Verdict& out) {
  read_named(place, out, kWorstVerdict, "the name of a verdict");
}
void read(const JsonPlace& place, VacuityOutcome& out) {
  read_named(place, out, VacuityOutcome::WouldPass, "\"rejected\", \"not applicable\" or \"would pass\"");
}
void read(const JsonPlace& place, RoutingTier& out) {
  read_named(place, out, RoutingTier::Failed, "the name of a routing tier");
}

template <class T>
concept Described = requires(T& value) { json::members(value, [](const char*, auto&, auto...) {}); };

template <Described T>
void read(const JsonPlace& place, T& out);
template <class T>
void read(const JsonPlace& place, std::optional<T>& out);
template <class T>
void read(const JsonPlace& place, std::vector<T>& out);

template <class A, class B>
void read(const JsonPlace& place, std::pair<A, B>& out) {
  if (!place.value.is_array() || place.value.size() != 2) place.expected("an array of two");
  read(place.element(0), out.first);
  read(place.element(1), out.second);
}

template <class T>
void read(const JsonPlace& place, std::optional<T>& out) {
  out.reset();
  if (!place.value.is_null()) read(place, out.emplace());
}

template <class T>
void read(const JsonPlace& place, std::vector<T>& out) {
  if (!place.value.is_array()) place.expected("an array");
  out.resize(place.value.size());
  for (std::size_t i = 0; i < out.size(); ++i) read(place.element(i), out[i]);
}

template <Described T>
void read(const JsonPlace& place, T& out) {
  json::members(out, [&place](const char* name, auto& member, auto... added) {
    if (sizeof...(added) > 0 && place.value.is_object() && !place.value.contains(name)) return;
    read(place.member(name), member);
  });
}

/// What a file that is no text at all is; empty for text.
std::string_view binary_kind(std::string_view text) {
  if (text.starts_with("\x89HDF\r\n")) return "an HDF5 file (assay verify judges it, and --json writes one)";
  constexpr std::size_t kLooked = 64;
  const bool control = std::ranges::any_of(text.substr(0, kLooked), [](unsigned char c) {
    return c < ' ' && c != '\t' && c != '\r' && c != '\n';
  });
  return control ? "a binary file" : "";
}

ParsedJson parse(std::string_view text) {
  if (const auto kind = binary_kind(text); !kind.empty())
    throw InputError(fmt::format("expected a report as verify --json writes it, found {}", kind));
  if (json_is_too_deep(text))
    throw InputError(fmt::format("expected JSON that nests at most {} deep, found more", kDeepestJson));
  try {
    return ParsedJson::parse(text);
  } catch (const ParsedJson::parse_error& error) {
    if (text.find_first_not_of(" \t\r\n") == std::string_view::npos)
      throw InputError("expected JSON, found an empty text");
    if (error.byte > text.size())
      throw InputError(
          fmt::format("expected the rest of a JSON document, found its end at byte {}: the file is truncated",
                      text.size()));
    throw InputError(
        fmt::format("expected JSON, found something else at byte {} of {}", error.byte, text.size()));
  } catch (const ParsedJson::out_of_range&) {
    throw InputError("expected numbers that fit a double, found a larger one");
  }
}

Report read_document(std::string_view text) {
  const ParsedJson document = parse(text);
  const JsonPlace top{document, ""};
  if (!document.is_object() || !document.contains("schema") || document["schema"] != kReportSchema)
    throw InputError(
        fmt::format("expected a document with \"schema\": \"{}\", found {}", kReportSchema,
                    !document.is_object() ? "something else"
                    : !document.contains("schema")
                        ? "no schema"
                        : document["schema"].dump(-1, ' ', true, ParsedJson::error_handler_t::replace)));
  int version = 0;
  read(top.member("version"), version);
  if (version != kReportVersion)
    throw InputError(fmt::format("expected version {} of the schema, found {}", kReportVersion, version));
  Report report;
  read(top, report);
  return report;
}

}  // namespace

Report report_from_json(std::string_view text, std::string_view source) {
  try {
    return read_document(text);
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", source, error.what()));
  }
}

}  // namespace assay
