#include <cmath>
#include <nlohmann/json.hpp>

#include "harness/host/json_text.h"
#include "reports/json.h"
#include "reports/json_members.h"

namespace assay {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kExactInDouble = std::int64_t{1} << 53;

template <class T>
concept Described =
    requires(const T& value) { json::members(value, [](const char*, const auto&, auto...) {}); };

/// Writes any value of a report. `terse` leaves out members at their default, where a reader gives them that.
struct JsonWriter {
  bool terse = false;

  Json written(bool value) const { return value; }
  Json written(const std::string& value) const { return value; }
  Json written(std::uint32_t value) const { return value; }
  Json written(Field value) const { return std::string(name(value)); }
  Json written(DType value) const { return std::string(row(value).name); }
  Json written(Verdict value) const { return std::string(name(value)); }
  Json written(VacuityOutcome value) const { return std::string(name(value)); }
  Json written(RoutingTier value) const { return std::string(name(value)); }

  Json written(double value) const {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return value;
  }

  Json written(std::int64_t value) const {
    if (value > kExactInDouble || value < -kExactInDouble) return std::to_string(value);
    return value;
  }

  Json written(std::uint64_t value) const {
    if (value > static_cast<std::uint64_t>(kExactInDouble)) return std::to_string(value);
    return value;
  }

  // An array of two, so that repeated names and their order survive.
  template <class A, class B>
  Json written(const std::pair<A, B>& value) const {
    Json pair = Json::array();
    pair.push_back(written(value.first));
    pair.push_back(written(value.second));
    return pair;
  }

  template <class T>
  Json written(const std::optional<T>& value) const {
    return value ? written(*value) : Json(nullptr);
  }

  template <class T>
  Json written(const std::vector<T>& values) const {
    Json array = Json::array();
    for (const T& value : values) array.push_back(written(value));
    return array;
  }

  template <Described T>
  Json written(const T& value) const {
    Json object = Json::object();
    json::members(value, [&](const char* name, const auto& member, auto... added) {
      if (terse && sizeof...(added) > 0 && JsonWriter{}.written(member) == blank<T>().at(name)) return;
      object[name] = written(member);
    });
    return object;
  }

  template <Described T>
  static const Json& blank() {
    static const Json all_defaults = JsonWriter{}.written(T{});
    return all_defaults;
  }
};

}  // namespace

std::string to_json(const Report& report, JsonLayout layout) {
  Json document = Json::object();
  document["schema"] = std::string(kReportSchema);
  document["version"] = kReportVersion;
  document["verdict"] =
      std::string(name(report.verdict()));  // for readers that want one word; derived, so not read back
  document.update(JsonWriter{layout == JsonLayout::Compact}.written(report));
  const int indent = layout == JsonLayout::Indented ? 1 : -1;
  return json_text(document, indent) + (indent > 0 ? "\n" : "");
}

}  // namespace assay
