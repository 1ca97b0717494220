#include "harness/cli/command_words.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

namespace assay::cli {
namespace {

const CLI::App& innermost(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  return *at;
}

/// How many letters must be inserted, left out, replaced or exchanged with their neighbour to make one word
/// the other.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

}  // namespace

std::string command_words(const CLI::App& app) {
  std::string words = app.get_name();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    words += " " + at->get_name();
  }
  return words;
}

std::string missing_command(const CLI::App& app) {
  const CLI::App& at = innermost(app);
  std::string valid;
  for (const auto* command : at.get_subcommands([](const CLI::App*) { return true; }))
    valid += fmt::format("{}{}", valid.empty() ? "" : ", ", command->get_name());
  const auto words = at.remaining();
  return fmt::format("{}; valid: {}",
                     words.empty() ? fmt::format("expected a command after '{}'", at.get_name())
                                   : fmt::format("unknown command '{}'", words.front()),
                     valid);
}

std::string unexpected_words(const CLI::App& app) {
  const CLI::App& command = innermost(app);
  const auto words = command.remaining().empty() ? app.remaining(true) : command.remaining();
  if (words.empty()) return "a word too many";
  const auto option =
      std::ranges::find_if(words, [](const std::string& word) { return word.starts_with("-"); });
  if (option == words.end()) {
    const std::string word = words.front();
    const bool file = word.ends_with(".h5") && command.get_option_no_throw("--golden") != nullptr;
    return fmt::format("expected options, found '{}'{}", word,
                       file ? "; a file is given as --golden " + word : "");
  }
  const std::string typed = option->substr(0, option->find('='));
  std::string nearest;
  for (const auto* one : command.get_options())
    for (const auto& name : one->get_lnames())
      if (const std::string full = "--" + name;
          edits(typed, full) <= 2 && (nearest.empty() || edits(typed, full) < edits(typed, nearest)))
        nearest = full;
  return fmt::format("unknown option '{}'{}", typed,
                     nearest.empty() ? "" : "; did you mean " + nearest + "?");
}

}  // namespace assay::cli
