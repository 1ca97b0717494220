// What a checker catches, as one page and one table: planted faults by detector, rules of thumb beside,
// detection by size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace assay {

struct Sensitivity {
  struct Rule {
    std::string name;
    bool ours = false;  // a detector of assay
    std::string sentence;
    std::string wrongly;  // share of correct runs it rejects, in words; empty where not measured
  };
  /// How many of the fault's problems a rule catches it on.
  struct Fault {
    std::string id;
    std::string sentence;
    std::string stage;
    std::int64_t problems = 0;
    std::vector<std::int64_t> caught;  // by rule
    std::string note;                  // "equivalent", "SURVIVED"; empty when killed in its stage
  };
  struct Line {
    std::string rule;
    std::vector<double> share;  // by size, of the seeds
    // smallest size found in 50 % and 99 % of the seeds, and in every larger one
    std::optional<double> half;
    std::optional<double> nearly_all;
    bool ours = false;
  };
  struct Curve {
    std::string title;
    std::string size;
    std::vector<double> sizes;
    std::int64_t seeds = 0;
    std::vector<Line> lines;
  };

  /// The same faults under other contracts and on other problems, each in words.
  struct Scope {
    std::string contract;
    std::string problems;
    std::string planted;
    std::string killed;
    std::string right_stage;
    std::string undeclared;
    std::string cause;
  };

  std::string command;
  std::vector<std::pair<std::string, std::string>> facts;  // headline figures: what, value
  std::vector<Rule> rules;
  std::vector<Fault> faults;
  std::vector<Curve> curves;
  std::vector<Scope> scopes;
};

/// A page that needs no network and no script.
std::string render_sensitivity_html(const Sensitivity& all);

/// The same as a document. No dates and no times: the same results give the same bytes.
std::string render_sensitivity_markdown(const Sensitivity& all);

}  // namespace assay
