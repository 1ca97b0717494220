#include "reports/html/html_sides.h"

#include <cmath>

#include <fmt/format.h>

#include "reports/escape.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

std::string row_of(std::string_view head, const std::string& value) {
  return fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", head, value);
}

std::string code(double value) { return fmt::format("<code>{}</code>", value_text(value)); }

/// A side's value, and whether it lies inside. Fields that must match exactly have no interval.
std::string side(Field field, const Element& about, std::optional<double> value) {
  if (!value) return "<span class=\"muted\">not in the report</span>";
  const bool inside = has_ratio(field) ? about.low <= *value && *value <= about.high : *value == about.ref;
  return fmt::format("{} <span class=\"{}\"><span class=\"sign\">{}</span> {}</span>", code(*value),
                     inside ? "good" : "bad", inside ? "✔" : "✘",
                     has_ratio(field) ? (inside ? "accepted" : "outside") : (inside ? "right" : "wrong"));
}

}  // namespace

std::string sides_figure(Field field, const SidesAt& at, const std::string& caption) {
  std::string out = "<div class=\"way\">";
  if (has_ratio(field))
    out += fmt::format("<figure>{}<figcaption>{}</figcaption></figure>",
                       svg::two_sides_line(at.about, at.a, at.b), escaped(caption));
  else
    out += fmt::format("<p class=\"muted\">{}</p>", escaped(caption));
  out += "<table class=\"facts\">" + row_of("where", escaped(place_text(at.about))) +
         row_of("A", side(field, at.about, at.a)) + row_of("B", side(field, at.about, at.b)) +
         row_of(at.reference, code(at.about.ref));
  if (has_ratio(field) && !std::isnan(at.about.ref))
    out += row_of("accepted", fmt::format("{} to {}", code(at.about.low), code(at.about.high)));
  return out + "</table></div>";
}

}  // namespace assay::html
