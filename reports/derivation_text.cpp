#include "reports/derivation_report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "harness/contract/stored.h"
#include "reports/columns.h"
#include "reports/text_paint.h"
#include "reports/wording.h"

namespace assay {
namespace {

constexpr std::size_t kEnd = 6;  // lines shown at each end of a long list

double half_width(const Interval& x) { return std::max({x.high - x.ref, x.ref - x.low, 0.0}); }

std::string predicted_text(const std::optional<float>& value) {
  return value ? value_text(static_cast<double>(*value)) : "-";
}

std::string interval_text(const Interval& x) {
  return half_width(x) == 0.0 ? "exact" : fmt::format("± {:.3g}", half_width(x));
}

/// The first and the last rows of a table that is too long; row 0 is its heading.
void shorten(Columns& lines, bool whole) {
  if (whole || lines.rows.size() <= 2 * kEnd + 2) return;
  const auto hidden = lines.rows.size() - 1 - 2 * kEnd;
  lines.rows.erase(lines.rows.begin() + 1 + kEnd, lines.rows.end() - kEnd);
  lines.rows.insert(lines.rows.begin() + 1 + kEnd, {fmt::format("({} more)", hidden)});
}

std::string table(std::string_view title, Columns lines, bool whole) {
  shorten(lines, whole);
  return fmt::format("\n  {}\n", title) + lines.text(4);
}

std::string values_text(const Derivation& d) {
  Columns lines;
  lines.aligns = {Align::Left, Align::Left, Align::Left, Align::Left};
  const int digits = d.dtype == DType::Float32 ? 10 : 6;
  const auto bits_text = [digits](std::uint32_t bits) { return fmt::format("{:#0{}x}", bits, digits); };
  const auto bits = [&](double x) { return bits_text(stored_as(d.dtype, x).bits()); };
  const std::string_view type = d.dtype == DType::Float32 ? "float32" : "bf16";
  const bool rounded = d.accepted_count > 0 || std::isnan(d.value.ref);
  if (d.out)
    lines.rows.push_back({"found", value_text(*d.out), rounded ? bits_text(d.out_bits) : "",
                          rounded ? fmt::format("{} ulp{} from the rounded reference; {} of the bound",
                                                d.ulps, d.ulps == 1 ? "" : "s", ratio_text(d.ratio))
                                  : ""});
  lines.rows.push_back({"reference", value_text(d.value.ref), rounded ? bits(d.value.ref) : "",
                        rounded ? "float64, before the last rounding; bits after" : ""});
  if (rounded) {
    lines.rows.push_back(
        {"interval", fmt::format("{} .. {}", value_text(d.value.low), value_text(d.value.high)), "",
         interval_text(d.value) +
             (d.value.noise > 0.0 ? fmt::format(", modelled rms error {:.2g}", d.value.noise) : "")});
    std::string listed;
    for (const double x : d.accepted)
      listed += fmt::format("{}{} ({})", listed.empty() ? "" : ", ", value_text(x), bits(x));
    if (d.accepted_count > static_cast<std::int64_t>(d.accepted.size())) listed += ", ...";
    lines.rows.push_back({"accepted",
                          fmt::format("{} {} value{}", grouped_digits(d.accepted_count), type,
                                      d.accepted_count == 1 ? "" : "s"),
                          "", listed});
  }
  if (d.predicted)
    lines.rows.push_back(
        {"predicted",
         d.predicted->undetermined ? "undetermined" : value_text(with_bits(d.dtype, d.predicted->bits).value),
         bits_text(d.predicted->bits),
         d.accumulator.empty() ? "" : "accumulator " + printable(d.accumulator)});
  return lines.text(2);
}

std::string terms_text(const Derivation& d) {
  if (d.largest.empty()) return "";
  const auto any = [&](auto has) { return std::ranges::any_of(d.largest, has); };
  const bool tokens = any([](const ProductTerm& t) { return t.token >= 0; });
  const bool slots = any([](const ProductTerm& t) { return t.slot >= 0; });
  const bool widths = any([](const ProductTerm& t) { return t.width > 0.0 || t.right_width > 0.0; });
  Columns lines;
  lines.rows.push_back({"k"});
  if (tokens) lines.rows.back().push_back("token");
  if (slots) lines.rows.back().push_back("slot");
  for (const char* heading : {"a", "b", "a b", "of sum |a||b|"}) lines.rows.back().push_back(heading);
  if (widths) lines.rows.back().insert(lines.rows.back().end(), {"a known to", "b known to"});
  lines.aligns.assign(lines.rows.back().size(), Align::Right);
  const auto width = [](double x) { return x > 0.0 ? fmt::format("± {:.3g}", x) : std::string("exact"); };
  for (const auto& t : d.largest) {
    std::vector<std::string> cells = {fmt::format("{}", t.k)};
    if (tokens) cells.push_back(fmt::format("{}", t.token));
    if (slots) cells.push_back(fmt::format("{}", t.slot));
    for (const double x : {t.a, t.b, t.product}) cells.push_back(value_text(x));
    cells.push_back(d.magnitude > 0 ? fmt::format("{:.2f} %", 100.0 * std::fabs(t.product) / d.magnitude)
                                    : "-");
    if (widths) cells.insert(cells.end(), {width(t.width), width(t.right_width)});
    lines.rows.push_back(std::move(cells));
  }
  return table(fmt::format("terms: {} largest of {}, sum |a||b| = {}; {}", d.largest.size(),
                           grouped_digits(d.terms), value_text(d.magnitude), d.operands),
               lines, true);
}

/// Whose order the partial sums follow.
std::string sums_title(const Derivation& d) {
  if (d.accumulator.empty())
    return "partial sums, ascending";  // no matrix product: its order is the contract's
  if (d.accumulator == "unknown")
    return "partial sums (no accumulator is declared: --accumulator hopper shows its own)";
  return fmt::format("partial sums, accumulator {}", printable(d.accumulator));
}

std::string sums_text(const Derivation& d, bool whole) {
  if (d.sums.empty()) return "";
  Columns lines;
  lines.aligns = {Align::Right, Align::Right, Align::Right, Align::Right, Align::Right};
  const bool exponents =
      std::ranges::any_of(d.sums, [](const PartialSum& s) { return s.exponent.has_value(); });
  lines.rows.push_back({"up to k", "float64", "as accumulated", "error", exponents ? "aligned to" : ""});
  for (const auto& s : d.sums)
    lines.rows.push_back({fmt::format("{}", s.end), value_text(s.exact), predicted_text(s.running),
                          s.running ? fmt::format("{:.3g}", static_cast<double>(*s.running) - s.exact) : "-",
                          s.exponent ? fmt::format("2^{}", *s.exponent) : ""});
  return table(sums_title(d), lines, whole);
}

std::string slots_text(const Derivation& d) {
  if (d.slots.empty()) return "";
  const bool weights = std::ranges::any_of(d.slots, [](const SlotTerm& s) { return s.weight.has_value(); });
  const bool predicted =
      std::ranges::any_of(d.slots, [](const SlotTerm& s) { return s.predicted.has_value(); });
  Columns lines;
  lines.rows.push_back({"slot", "expert", "value"});
  if (weights) lines.rows.back() = {"slot", "expert", "weight", "value", "product"};
  if (predicted) lines.rows.back().push_back("predicted");
  lines.aligns.assign(lines.rows.back().size(), Align::Right);
  for (const auto& s : d.slots) {
    std::vector<std::string> cells = {fmt::format("{}", s.slot), fmt::format("{}", s.expert)};
    if (s.weight) cells.push_back(value_text(s.weight->ref));
    cells.push_back(value_text(s.value.ref));
    if (s.weight) cells.push_back(value_text(s.product.ref));
    if (predicted) cells.push_back(predicted_text(s.predicted));
    lines.rows.push_back(std::move(cells));
  }
  return table(fmt::format("slots: {}", d.slots_are), lines, true);
}

std::string steps_text(const Derivation& d) {
  if (d.steps.empty()) return "";
  Columns lines;
  lines.aligns = {Align::Left, Align::Right, Align::Left, Align::Right, Align::Left};
  lines.rows.push_back({"step", "float64", "", "predicted", ""});
  for (const auto& s : d.steps)
    lines.rows.push_back(
        {s.what, value_text(s.value.ref), interval_text(s.value), predicted_text(s.predicted), s.formula});
  return table("steps", lines, true);
}

std::string ranking_text(const Derivation& d, bool whole) {
  if (d.ranking.empty()) return "";
  Columns lines;
  lines.aligns = {Align::Right, Align::Right, Align::Right, Align::Right,
                  Align::Right, Align::Right, Align::Right};
  lines.rows.push_back({"rank", "expert", "logit", "gap", "probability", "slot", "predicted slot"});
  for (std::size_t i = 0; i < d.ranking.size(); ++i) {
    const auto& e = d.ranking[i];
    const auto slot = [](std::int64_t at) { return at < 0 ? std::string("-") : fmt::format("{}", at); };
    lines.rows.push_back({fmt::format("{}", i), fmt::format("{}", e.expert), value_text(e.logit),
                          fmt::format("{:+.4g}", e.gap), fmt::format("{:.6g}", e.probability), slot(e.slot),
                          e.predicted ? slot(e.predicted_slot) : ""});
  }
  // The border of the selection is what matters: ranks far below it say little.
  std::int64_t chosen = 0;
  for (const auto& e : d.ranking) chosen = std::max(chosen, std::max(e.slot, e.predicted_slot) + 1);
  const auto shown = static_cast<std::size_t>(chosen) + 1 + kEnd;
  if (!whole && lines.rows.size() > shown + 1) {
    const auto hidden = lines.rows.size() - shown;
    lines.rows.resize(shown);
    lines.rows.push_back({fmt::format("({} more)", hidden)});
  }
  return table("ranking; gap: logit less that of the other side of the selection's border", lines, true);
}

/// The parts of a bound with their sum below them.
double add_parts(Columns& lines, const std::vector<BoundPart>& parts) {
  double sum = 0.0;
  for (const auto& part : parts) {
    lines.rows.push_back({fmt::format("{:.3g}", part.value), part.what});
    sum += part.value;
  }
  return sum;
}

/// Whose the bound in force is, of a sum; nothing of other fields.
std::string_view which_bound(const Derivation& d, double in_force, double any_order) {
  if (d.terms > 0 && in_force == 0.0 && any_order > 0.0) return ", as the sum is exact in any order";
  if (!d.running.empty() && in_force < 0.9 * any_order) return ", the running bound";
  return d.terms > 0 ? ", the a-priori bound" : "";
}

std::string bound_text(const Derivation& d) {
  if (d.bound.empty()) return "";
  Columns a_priori;
  Columns running;
  a_priori.aligns = running.aligns = {Align::Right, Align::Left};
  const double any_order = add_parts(a_priori, d.bound);
  const double in_force = half_width(d.value);
  a_priori.rows.push_back({fmt::format("{:.3g}", any_order), "sum: the a-priori bound"});
  std::string out = table("a-priori bound, for any order of summation", a_priori, true);
  if (!d.running.empty()) {
    const double own_order = add_parts(running, d.running);
    running.rows.push_back(
        {fmt::format("{:.3g}", own_order),
         fmt::format("sum: the running bound, {} times as narrow", ratio_text(any_order / own_order))});
  }
  if (!d.running_words.empty())
    out += fmt::format("\n  running bound: {}\n", printable(d.running_words)) + running.text(4);
  out += fmt::format("\n  delta in force, before the last rounding: {:.3g}{}\n", in_force,
                     which_bound(d, in_force, any_order));
  return out;
}

}  // namespace

std::string render_text(const Derivation& d, const TextOptions& options) {
  const auto width = static_cast<std::size_t>(options.width);
  std::string at;
  for (const auto& [axis, index] : d.at) at += fmt::format("{}{} {}", at.empty() ? "" : ", ", axis, index);
  const std::string first = fmt::format("{} {}", sign(mark(d.verdict)), words(d.verdict));
  std::string out =
      fmt::format("{}  {} at {}\n", painted(first, mark(d.verdict), options.colour), name(d.field), at);
  out += wrapped(
      fmt::format("{}, {}, contract {}, {}{}", printable(d.problem), printable(d.candidate), d.contract,
                  d.mode == Mode::Isolated ? "isolated" : "chained", d.from.empty() ? "" : " from " + d.from),
      "  ", width);
  out += wrapped(d.sentence, "  ", width) + "\n" + values_text(d);
  out += terms_text(d) + sums_text(d, options.verbose) + slots_text(d) + steps_text(d) +
         ranking_text(d, options.verbose) + bound_text(d);
  for (const auto& remark : d.remarks) out += wrapped(remark, "  note: ", width);
  return out;
}

}  // namespace assay
