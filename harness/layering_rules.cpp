#include "harness/layering_rules.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>
#include <regex>
#include <span>
#include <utility>

#include <fmt/format.h>

namespace fs = std::filesystem;

namespace layering {

const std::vector<OwnedHeader> kOwned = {
    {"hdf5", {"golden"}},
    {"H5", {"golden"}},
    {"openssl/", {"golden"}},
    {"Eigen/", {"reference_cpu"}},
    {"cuda", {"gpu"}},
    {"cublas", {"gpu"}},
    {"cooperative_groups", {"gpu"}},
    {"Random123/", {"fixtures", "gpu"}},
    {"png.h", {"reports"}},
    {"CLI/", {"harness/cli"}},
};

namespace {

bool starts_with(const std::string& path, std::string_view folder) {
  return path.starts_with(fmt::format("{}/", folder));
}

/// The layer a file belongs to: a room of harness/ or its first folder; empty at the root.
std::string layer_of(const std::string& path) {
  for (const auto room : kRooms)
    if (starts_with(path, room)) return std::string(room);
  const auto slash = path.find('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

bool among(std::string_view layer, std::span<const std::string_view> layers) {
  return std::ranges::find(layers, layer) != layers.end();
}

/// The arrows of inclusion: the program may include everybody, the others themselves and what is below them.
bool may_include(std::string_view layer, std::string_view target) {
  if (layer == target || layer == "harness/cli") return true;
  if (target == "harness/contract") return among(layer, kSiblings) || among(layer, kRooms);
  return target == "harness/host" && (among(layer, kSiblings) || layer == "harness/judge");
}

/// Headers that the build makes, for the layer that includes them.
const std::pair<std::string, std::string> kMadeByTheBuild[] = {
    {"harness/cli", "build_facts.h"},
    {"harness/cli", "revision.h"},
    {"reference_cpu", "data_dir.h"},
};

/// What is wrong with including `header` from the file at `path`, or nothing.
std::optional<std::string> wrong_include(const std::string& path, const std::string& header, bool quoted) {
  const auto layer = layer_of(path);
  if (!quoted) {
    for (const auto& [start, folders] : kOwned)
      if (header.starts_with(start) && std::ranges::find(folders, layer) == folders.end())
        return fmt::format("{} includes <{}>, which belongs to {}", path, header, fmt::join(folders, ", "));
    return std::nullopt;
  }
  if (std::ranges::find(kMadeByTheBuild, std::pair(layer, header)) != std::end(kMadeByTheBuild))
    return std::nullopt;
  const auto target = layer_of(header);
  const bool beside = layer == target && layer == "harness";  // this file's own folder
  if (!among(target, kSiblings) && !among(target, kRooms) && !beside)
    return fmt::format("{} includes \"{}\", which is not written from the root", path, header);
  if (may_include(layer, target)) return std::nullopt;
  return fmt::format(
      "{} includes \"{}\": {} may include itself, harness/contract and, but for that folder "
      "itself, harness/host only",
      path, header, layer);
}

struct Include {
  std::string header;
  bool quoted;
};

/// What a line includes: `#`, `include` and a name in <> or quotes, with spaces anywhere between.
std::optional<Include> include_in(std::string_view line) {
  const auto skip_spaces = [&] { line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size())); };
  skip_spaces();
  if (!line.starts_with('#')) return std::nullopt;
  line.remove_prefix(1);
  skip_spaces();
  constexpr std::string_view kWord = "include";
  if (!line.starts_with(kWord)) return std::nullopt;
  line.remove_prefix(kWord.size());
  skip_spaces();
  if (line.empty() || (line[0] != '<' && line[0] != '"')) return std::nullopt;
  const auto end = line.find(line[0] == '<' ? '>' : '"', 1);
  if (end == std::string_view::npos) return std::nullopt;
  return Include{std::string(line.substr(1, end - 1)), line[0] == '"'};
}

/// Calls `visit(line, number)` for each line, the first being number 1.
template <class Visit>
void for_each_line(std::string_view text, Visit visit) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    visit(std::string(text.substr(0, end)), number);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
}

/// Characters of a line of UTF-8.
std::size_t columns(std::string_view line) {
  return static_cast<std::size_t>(
      std::ranges::count_if(line, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

/// The name of the type that a line defines at the scope of a namespace, or nothing: such lines are not
/// indented, and what ends in `;`, continues with a name or is a specialisation defines none.
std::string defined_type(const std::string& line) {
  static const std::regex kPattern(
      R"(^(?:template <.*> *)?(?:(?:struct|class|union|enum|enum class)\s+(?:alignas\(.*?\)\s*)?(\w+))"
      R"((?:\s+final)?\s*(?:\{.*|:[^:].*|:|)|using\s+(\w+)\s*=.*)$)");
  static constexpr std::string_view kStarts[] = {"template ", "struct ", "class ",
                                                 "union ",    "enum ",   "using "};
  if (std::ranges::none_of(kStarts, [&](std::string_view start) { return line.starts_with(start); }))
    return "";
  std::smatch found;
  if (!std::regex_match(line, found, kPattern)) return "";
  return found[1].matched ? found[1] : found[2];
}

bool is_text(const fs::path& path) {
  static const std::string_view kEndings[] = {".h",   ".cpp",  ".cuh", ".cu",  ".py",   ".md",  ".build",
                                              ".txt", ".html", ".js",  ".css", ".wrap", ".toml"};
  return std::ranges::find(kEndings, path.extension().string()) != std::end(kEndings) ||
         path.filename() == "dev";
}

}  // namespace

bool is_code(const std::string& path) {
  return path.ends_with(".h") || path.ends_with(".cpp") || path.ends_with(".cuh") || path.ends_with(".cu");
}

std::vector<std::string> TypeNames::complaints(const std::string& path, const std::string& text) {
  std::vector<std::string> found;
  for_each_line(text, [&](const std::string& line, std::size_t) {
    const auto name = defined_type(line);
    if (name.empty()) return;
    const auto [first, is_new] = seen_.emplace(name, TypeDefinition{path, line});
    const bool same_alias = line.starts_with("using") && line == first->second.line;
    if (!is_new && !same_alias)
      found.push_back(fmt::format("{} and {} both define {}", first->second.path, path, name));
  });
  return found;
}

std::vector<std::string> complaints(const std::string& path, const std::string& text) {
  // Written in two parts, or this file would complain about itself.
  static const std::string kForeignPaths[] = {std::string("/wo") + "rk/", std::string("/ho") + "me/",
                                              std::string("/ro") + "ot/"};
  std::vector<std::string> found;
  std::size_t lines = 0;
  const bool code = is_code(path);
  bool formatted = true;  // not between clang-format off and on: tables
  for_each_line(text, [&](const std::string& line, std::size_t number) {
    lines = number;
    if (line.find("clang-format off") != std::string::npos) formatted = false;
    if (line.find("clang-format on") != std::string::npos) formatted = true;
    if (code && formatted && columns(line) > kMostColumns)
      found.push_back(fmt::format("{}:{} has more than {} columns", path, number, kMostColumns));
    if (code)
      if (const auto include = include_in(line))
        if (auto wrong = wrong_include(path, include->header, include->quoted)) found.push_back(*wrong);
    for (const auto& foreign : kForeignPaths)
      if (line.find(foreign) != std::string::npos)
        found.push_back(fmt::format("{}:{} mentions {}", path, number, foreign));
  });
  const bool limited =
      code || path.ends_with(".py") || path.ends_with(".js") || path.ends_with(".css") || path == "dev";
  if (limited && lines > kMostLines)
    found.push_back(fmt::format("{} has {} lines, more than {}", path, lines, kMostLines));
  return found;
}

std::vector<std::string> sources(const fs::path& root) {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(root))
    if (entry.is_regular_file() && is_text(entry.path())) found.push_back(entry.path().filename().string());
  for (const std::string_view folder : {"harness", "fixtures", "reference_cpu", "gpu", "golden", "reports"})
    for (const auto& entry : fs::recursive_directory_iterator(root / folder))
      if (entry.is_regular_file() && is_text(entry.path()))
        found.push_back(fs::relative(entry.path(), root).generic_string());
  std::ranges::sort(found);
  return found;
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace layering
