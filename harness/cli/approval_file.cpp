#include "harness/cli/approval_file.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>

#include <fmt/format.h>

#include "golden/file_text.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"
#include "harness/host/atomic_file.h"
#include "harness/host/json_text.h"

namespace assay::cli {
namespace {

constexpr std::string_view kSchema = "assay-approvals";
constexpr int kVersion = 1;
constexpr std::size_t kLongest = std::size_t{1} << 26;
constexpr Severity kSeverities[] = {Severity::Same, Severity::Approved, Severity::Legal,
                                    Severity::Regression};

/// JSON has no infinity; a ratio can be one.
nlohmann::ordered_json number_json(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}

/// A file's members, each with its place for messages: "approvals[0].changes[2].field".
class ApprovalReader {
 public:
  ApprovalReader(const nlohmann::json& value, std::string source, std::string place = "")
      : value_(value), source_(std::move(source)), place_(std::move(place)) {}

  ApprovalReader at(const char* member) const {
    const auto found = value_.is_object() ? value_.find(member) : value_.end();
    const std::string place = place_.empty() ? member : fmt::format("{}.{}", place_, member);
    if (!value_.is_object() || found == value_.end()) fail(place, "a value", "none");
    return {*found, source_, place};
  }
  bool has(const char* member) const { return value_.is_object() && value_.contains(member); }
  std::vector<ApprovalReader> items() const {
    if (!value_.is_array()) fail(place_, "a list", value_.dump());
    std::vector<ApprovalReader> all;
    for (std::size_t i = 0; i < value_.size(); ++i)
      all.emplace_back(value_[i], source_, fmt::format("{}[{}]", place_, i));
    return all;
  }
  std::string text() const {
    if (!value_.is_string()) fail(place_, "a text", value_.dump());
    return value_.get<std::string>();
  }
  double number() const {
    if (value_.is_number()) return value_.get<double>();
    if (value_ == "Infinity") return std::numeric_limits<double>::infinity();
    if (value_ == "-Infinity") return -std::numeric_limits<double>::infinity();
    if (value_ == "NaN") return std::numeric_limits<double>::quiet_NaN();
    fail(place_, "a number", value_.dump());
  }
  /// The one of `all` that has this name.
  template <class Named, class All>
  Named named(std::string_view kind, const All& all) const {
    const std::string word = text();
    for (const Named one : all)
      if (name(one) == word) return one;
    fail(place_, kind, fmt::format("\"{}\"", word));
  }
  [[noreturn]] void fail(std::string_view place, std::string_view expected, const std::string& found) const {
    throw InputError(fmt::format("{}: expected {} at {}, found {}", source_, expected, place,
                                 printable(found.substr(0, 60))));
  }

 private:
  const nlohmann::json& value_;
  std::string source_;
  std::string place_;
};

std::vector<Verdict> every_verdict() {
  std::vector<Verdict> all;
  for (int i = 0; i <= static_cast<int>(kWorstVerdict); ++i) all.push_back(static_cast<Verdict>(i));
  return all;
}

ApprovedFinding approved_finding(const ApprovalReader& change, const Approval& approval) {
  ApprovedFinding one{change.at("severity").named<Severity>("a severity", kSeverities),
                      change.at("sentence").text()};
  if (change.has("problem")) one.problem = change.at("problem").text();
  if (change.has("candidate")) one.candidate = change.at("candidate").text();
  if (change.has("field")) {
    const ApprovalReader field = change.at("field");
    one.field = find_field(field.text());
    if (!one.field) field.fail("field", "a field's name", field.text());
  }
  if (change.has("verdict")) {
    one.before = change.at("verdict").at("before").named<Verdict>("a verdict", every_verdict());
    one.now = change.at("verdict").at("now").named<Verdict>("a verdict", every_verdict());
  }
  if (change.has("figures"))
    for (const ApprovalReader& figure : change.at("figures").items())
      one.figures.push_back(
          {figure.at("what").text(), figure.at("before").number(), figure.at("now").number()});
  one.approval = approval;
  return one;
}

/// The document at `path`, checked as far as its head; an empty one where there is no file.
nlohmann::json document(const std::string& path) {
  if (!std::filesystem::exists(path))
    return {{"schema", kSchema}, {"version", kVersion}, {"approvals", nlohmann::json::array()}};
  nlohmann::json all = parse_json(file_text(path, kLongest));
  if (!all.is_object() || !all.contains("schema") || all["schema"] != kSchema)
    throw InputError(fmt::format("{}: expected JSON with \"schema\": \"{}\"", path, kSchema));
  if (!all.contains("version") || all["version"] != kVersion)
    throw InputError(fmt::format("{}: expected version {} of schema {}, found {}", path, kVersion, kSchema,
                                 all.value("version", nlohmann::json()).dump()));
  return all;
}

/// What a program of git's says, one line; "" where there is none.
std::string said_by(const char* command) {
  const auto close = [](std::FILE* stream) { pclose(stream); };
  const std::unique_ptr<std::FILE, decltype(close)> stream(popen(command, "r"), close);
  std::array<char, 512> line{};
  if (!stream || std::fgets(line.data(), line.size(), stream.get()) == nullptr) return "";
  std::string text = line.data();
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

}  // namespace

std::string_view name(Severity severity) {
  constexpr std::string_view names[] = {"same", "approved", "legal", "REGRESSION"};
  return names[static_cast<int>(severity)];
}

std::string approvals_beside(const std::string& baseline) {
  return std::filesystem::path(baseline).replace_extension().string() + kApprovalsEnding;
}

nlohmann::ordered_json finding_json(const Finding& finding) {
  nlohmann::ordered_json all = {{"severity", name(finding.severity)}, {"sentence", finding.sentence}};
  if (!finding.problem.empty()) all["problem"] = finding.problem;
  if (!finding.candidate.empty()) all["candidate"] = finding.candidate;
  if (finding.field) all["field"] = name(*finding.field);
  if (finding.before && finding.now)
    all["verdict"] = {{"before", name(*finding.before)}, {"now", name(*finding.now)}};
  for (const Figure& one : finding.figures)
    all["figures"].push_back(
        {{"what", one.what}, {"before", number_json(one.before)}, {"now", number_json(one.now)}});
  if (finding.approval)
    all["approved"] = {
        {"by", finding.approval->by}, {"why", finding.approval->why}, {"when", finding.approval->when}};
  return all;
}

std::vector<ApprovedFinding> read_approvals(const std::string& path) {
  const nlohmann::json all = document(path);
  std::vector<ApprovedFinding> approved;
  for (const ApprovalReader& decision : ApprovalReader(all, path).at("approvals").items()) {
    const Approval approval{decision.at("by").text(), decision.at("why").text(), decision.at("when").text()};
    for (const ApprovalReader& change : decision.at("changes").items())
      approved.push_back(approved_finding(change, approval));
  }
  return approved;
}

void add_approval(const std::string& path, const Decision& decision) {
  read_approvals(path);  // nothing is added to a file that could not be read again
  nlohmann::ordered_json all = document(path);
  auto changes = nlohmann::ordered_json::array();
  for (const Finding& one : decision.changes) changes.push_back(finding_json(one));
  all["approvals"].push_back({{"by", decision.approval.by},
                              {"why", decision.approval.why},
                              {"when", decision.approval.when},
                              {"revision", decision.revision},
                              {"assay", decision.assay},
                              {"baseline", decision.baseline},
                              {"candidate", decision.candidate},
                              {"changes", changes}});
  write_file_atomically(path, json_text(all, 2) + "\n");
}

std::string present_user() {
  const std::string user = said_by("git config user.name 2>/dev/null");
  const char* login = std::getenv("USER");
  return !user.empty() ? user : login != nullptr ? login : "";
}

std::string present_revision() { return said_by("git describe --always --dirty 2>/dev/null"); }

}  // namespace assay::cli
