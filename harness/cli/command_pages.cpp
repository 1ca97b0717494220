#include "harness/cli/command_pages.h"

#include <algorithm>
#include <functional>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

namespace assay::cli {
namespace {

/// Options whose values the program can list itself, by `assay list KIND`.
constexpr std::pair<const char*, const char*> kListed[] = {
    {"fixture", "fixtures"}, {"pipeline", "pipelines"}, {"contract", "contracts"},
    {"stage", "stages"},     {"field", "fields"},       {"fault", "faults"}};

/// What may follow an option.
enum class ValueKind { None, Words, Listed, Path, Free };

/// An option as pages show it.
struct OptionPage {
  std::vector<std::string> names;  // "-q", "--quiet"; empty: a positional word
  std::string value;               // "FILE...", empty for a flag
  std::string description;
  ValueKind kind = ValueKind::None;
  std::string words;  // the values in question, separated by blanks, or the kind to list
};

/// A command with the words that lead to it: "assay golden make".
struct CommandPage {
  std::string words;
  const CLI::App* command = nullptr;
  std::vector<OptionPage> options;
  std::vector<const CLI::App*> commands;
};

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size())
    text.replace(at, what.size(), with);
  return text;
}

OptionPage option_page(const CLI::Option& option) {
  OptionPage page;
  for (const auto& name : option.get_snames()) page.names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) page.names.push_back("--" + name);
  page.description = option.get_description();
  if (option.get_items_expected_max() == 0) return page;
  // CLI11 appends what a validator says: "WHEN:{auto,always,never}".
  const std::string type = option.get_type_name();
  page.value = type.substr(0, type.find(':'));
  page.kind = ValueKind::Free;
  if (const auto open = type.find('{'); open != std::string::npos) {
    page.kind = ValueKind::Words;
    page.words = replaced(type.substr(open + 1, type.find('}') - open - 1), ",", " ");
  }
  for (const char* path : {"FILE", "DIR", "RESULT"})
    if (page.value.find(path) != std::string::npos) page.kind = ValueKind::Path;
  for (const auto& [name, kind] : kListed)
    if (std::ranges::find(option.get_lnames(), name) != option.get_lnames().end()) {
      page.kind = ValueKind::Listed;
      page.words = kind;
    }
  return page;
}

void collect(const CLI::App& command, const std::string& words, std::vector<CommandPage>& pages) {
  CommandPage page{words, &command, {}, {}};
  for (const auto* option : command.get_options([](const CLI::Option* o) { return !o->get_group().empty(); }))
    page.options.push_back(option_page(*option));
  page.commands = command.get_subcommands([](const CLI::App* a) { return !a->get_group().empty(); });
  pages.push_back(page);
  for (const auto* one : page.commands) collect(*one, words + " " + one->get_name(), pages);
}

std::vector<CommandPage> pages_of(const CLI::App& app) {
  std::vector<CommandPage> pages;
  collect(app, app.get_name(), pages);
  return pages;
}

std::string joined(const std::vector<std::string>& words, std::string_view between) {
  return fmt::format("{}", fmt::join(words, between));
}

/// Words of a command that may come next: its commands and the names of its options.
std::string next_words(const CommandPage& page) {
  std::vector<std::string> words;
  for (const auto* one : page.commands) words.push_back(one->get_name());
  for (const auto& option : page.options) words.insert(words.end(), option.names.begin(), option.names.end());
  return joined(words, " ");
}

std::string roff(const std::string& text) {
  const std::string plain = replaced(replaced(text, "\\", "\\e"), "-", "\\-");
  std::string safe;
  for (std::size_t at = 0; at < plain.size(); ++at) {
    const bool line_starts = at == 0 || plain[at - 1] == '\n';
    if (line_starts && (plain[at] == '.' || plain[at] == '\'')) safe += "\\&";
    safe += plain[at];
  }
  return safe;
}

std::string roff_option(const OptionPage& option) {
  std::string head;
  for (const auto& name : option.names)
    head += fmt::format("{}\\fB{}\\fR", head.empty() ? "" : ", ", roff(name));
  if (!option.value.empty()) head += fmt::format("{}\\fI{}\\fR", head.empty() ? "" : " ", roff(option.value));
  std::string text = fmt::format(".TP\n{}\n{}\n", head, roff(option.description));
  if (option.kind == ValueKind::Words) text += fmt::format("One of: {}.\n", roff(option.words));
  return text;
}

/// Shell code that sets `at` to the words of the command which is being typed, from those before the cursor.
std::string known_commands(const std::vector<CommandPage>& pages) {
  std::vector<std::string> known;
  for (const auto& page : pages)
    if (page.words.find(' ') != std::string::npos) known.push_back(fmt::format("\"{}\"", page.words));
  return joined(known, " | ");
}

using ValueCode = std::function<std::string(const OptionPage&)>;

/// Cases "command option" of every option that takes a value, with the shell's code for its values.
std::string value_cases(const std::vector<CommandPage>& pages, const ValueCode& code) {
  std::string text;
  for (const auto& page : pages)
    for (const auto& option : page.options) {
      if (option.names.empty() || option.kind == ValueKind::None) continue;
      std::vector<std::string> patterns;
      for (const auto& name : option.names) patterns.push_back(fmt::format("\"{} {}\"", page.words, name));
      text += fmt::format("    {}) {} ;;\n", joined(patterns, " | "), code(option));
    }
  return text;
}

std::string shell_quoted(const std::string& text) { return "'" + replaced(text, "'", "'\\''") + "'"; }

std::string list_command(const std::string& kind) {
  return fmt::format("assay list {} 2>/dev/null | awk 'NR > 1 {{ print $1 }}'", kind);
}

}  // namespace

std::string manual_page(const CLI::App& app, const std::string& version) {
  const auto pages = pages_of(app);
  std::string text = fmt::format(
      ".TH ASSAY 1 \"\" \"{}\" \"User Commands\"\n.SH NAME\nassay \\- judge kernels of the Qwen3 MoE layer "
      "field by field\n.SH SYNOPSIS\n.B assay\n.I command\n[\\fIoptions\\fR]\n.SH "
      "DESCRIPTION\n.nf\n{}\n.fi\n",
      roff(version), roff(app.get_description()));
  for (const auto& page : pages) {
    const bool whole = page.command == &app;
    text += whole ? ".SH OPTIONS\n"
                  : fmt::format(".SS {}\n{}\n", roff(page.words), roff(page.command->get_description()));
    for (const auto& option : page.options) text += roff_option(option);
    if (whole) text += ".SH COMMANDS\n";
  }
  return text + fmt::format(".SH EXIT STATUS\n.nf\n{}\n.fi\n", roff(app.get_footer()));
}

std::string bash_completion(const CLI::App& app) {
  const auto pages = pages_of(app);
  std::string next;
  for (const auto& page : pages)
    next += fmt::format("    \"{}\") words=\"{}\" ;;\n", page.words, next_words(page));
  const auto values = value_cases(pages, [](const OptionPage& option) -> std::string {
    switch (option.kind) {
      case ValueKind::Words: return fmt::format("words=\"{}\"", option.words);
      case ValueKind::Listed: return fmt::format("words=$({})", list_command(option.words));
      case ValueKind::Path: return "files=yes";
      default: return "return";
    }
  });
  return fmt::format(R"(# bash completion for assay: made by `assay completion bash`.
_assay() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} option=${{COMP_WORDS[COMP_CWORD - 1]}} at=assay words= files= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at ${{COMP_WORDS[i]}}" in
    {}) at="$at ${{COMP_WORDS[i]}}" ;;
    esac
    # One option may be followed by several values.
    case "${{COMP_WORDS[i]}}" in -*) option=${{COMP_WORDS[i]}} ;; esac
  done
  case "$at $option" in
{}  esac
  if [ -z "$words$files" ] || [[ $current == -* ]]; then
    files=
    case "$at" in
{}    esac
  fi
  if [ -n "$files" ]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  fi
}}
complete -F _assay assay
)",
                     known_commands(pages), values, next);
}

std::string zsh_completion(const CLI::App& app) {
  const auto pages = pages_of(app);
  std::string next;
  for (const auto& page : pages)
    next += fmt::format("    \"{}\") compadd -- {} ;;\n", page.words, next_words(page));
  const auto values = value_cases(pages, [](const OptionPage& option) -> std::string {
    switch (option.kind) {
      case ValueKind::Words: return fmt::format("compadd -- {}; return", option.words);
      case ValueKind::Listed:
        return fmt::format("compadd -- ${{(f)\"$({})\"}}; return", list_command(option.words));
      case ValueKind::Path: return "_files; return";
      default: return "return";
    }
  });
  return fmt::format(R"(#compdef assay
# zsh completion for assay: made by `assay completion zsh`.
_assay() {{
  local at=assay option= i
  for ((i = 2; i < CURRENT; i++)); do
    case "$at $words[i]" in
    {}) at="$at $words[i]" ;;
    esac
    case "$words[i]" in -*) option=$words[i] ;; esac
  done
  if [[ $words[CURRENT] != -* ]]; then
    case "$at $option" in
{}    esac
  fi
  case "$at" in
{}  esac
}}
_assay "$@"
)",
                     known_commands(pages), values, next);
}

std::string fish_completion(const CLI::App& app) {
  std::string text = "# fish completion for assay: made by `assay completion fish`.\ncomplete -c assay -f\n";
  for (const auto& page : pages_of(app)) {
    // The command that is being typed: all its words were seen, and none of those below it.
    std::string when;
    for (const auto* at = page.command; at != &app; at = at->get_parent())
      when = fmt::format("__fish_seen_subcommand_from {}; and {}", at->get_name(), when);
    std::vector<std::string> below;
    for (const auto* one : page.commands) below.push_back(one->get_name());
    when += below.empty() ? "true" : fmt::format("not __fish_seen_subcommand_from {}", joined(below, " "));
    for (const auto* one : page.commands)
      text += fmt::format("complete -c assay -n {} -a {} -d {}\n", shell_quoted(when), one->get_name(),
                          shell_quoted(one->get_description()));
    for (const auto& option : page.options) {
      if (option.names.empty()) continue;
      std::string line = fmt::format("complete -c assay -n {}", shell_quoted(when));
      for (const auto& name : option.names)
        line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (option.kind == ValueKind::Path) line += " -r -F";
      if (option.kind == ValueKind::Words) line += " -x -a " + shell_quoted(option.words);
      if (option.kind == ValueKind::Listed)
        line += " -x -a " + shell_quoted("(" + list_command(option.words) + ")");
      if (option.kind == ValueKind::Free) line += " -x";
      text += fmt::format("{} -d {}\n", line, shell_quoted(option.description));
    }
  }
  return text;
}

}  // namespace assay::cli
