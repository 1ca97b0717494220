// The order of the folders, held by a test: it reads the source tree (the working directory is the tree's
// root).
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <regex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kSiblings[] = {"fixtures", "reference_cpu", "gpu", "golden", "reports"};
// The rooms of harness/: what two sides agree on, what touches the machine, who compares, the program.
constexpr std::string_view kRooms[] = {"harness/contract", "harness/host", "harness/judge", "harness/cli"};
constexpr std::size_t kMostLines = 350;
constexpr std::size_t kMostColumns = 110;

/// Headers of other projects, by how their path starts, and the folders that may include them.
struct Owned {
  std::string_view header;
  std::vector<std::string_view> folders;
};
const std::vector<Owned> kOwned = {
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

/// What is wrong with including `header` from the file at `path`, or nothing.
std::optional<std::string> wrong_include(const std::string& path, const std::string& header, bool quoted) {
  const auto layer = layer_of(path);
  if (!quoted) {
    for (const auto& [start, folders] : kOwned)
      if (header.starts_with(start) && std::ranges::find(folders, layer) == folders.end())
        return fmt::format("{} includes <{}>, which belongs to {}", path, header, fmt::join(folders, ", "));
    return std::nullopt;
  }
  // The build makes it from revision.h.in.
  if (layer == "harness/cli" && header == "revision.h") return std::nullopt;
  const auto target = layer_of(header);
  if (!among(target, kSiblings) && !among(target, kRooms))
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

bool is_code(const std::string& path) {
  return path.ends_with(".h") || path.ends_with(".cpp") || path.ends_with(".cuh") || path.ends_with(".cu");
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

struct TypeDefinition {
  std::string path;
  std::string line;
};

/// Types of one name in two places. The same alias of the same type, word for word, is one type.
class TypeNames {
 public:
  /// What a file's types have in common with those of the files before it.
  std::vector<std::string> complaints(const std::string& path, const std::string& text) {
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

 private:
  std::map<std::string, TypeDefinition> seen_;
};

/// Everything wrong with one file's text.
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

bool is_text(const fs::path& path) {
  static const std::string_view kEndings[] = {".h",   ".cpp",  ".cuh", ".cu",  ".py",   ".md",  ".build",
                                              ".txt", ".html", ".js",  ".css", ".wrap", ".toml"};
  return std::ranges::find(kEndings, path.extension().string()) != std::end(kEndings) ||
         path.filename() == "dev";
}

/// Paths from the root, with slashes: our folders and the files beside them.
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

}  // namespace

TEST_SUITE("layering") {
  TEST_CASE("the tree keeps the order of its folders, the length of its files, and speaks of itself alone") {
    REQUIRE_MESSAGE(fs::exists("harness/contract/field.h"), "run from the root of the source tree");
    const auto files = sources(".");
    REQUIRE(files.size() > 100);
    for (const auto& path : files)
      for (const auto& complaint : complaints(path, read(path))) FAIL_CHECK(complaint);
  }

  TEST_CASE("a sibling's header is refused, what is below and the own folder are not") {
    CHECK(complaints("gpu/a.cpp", "#include \"reference_cpu/merge.h\"\n").size() == 1);
    CHECK(complaints("reports/html/a.cpp", "  #  include \"golden/hdf5.h\"\n").size() == 1);
    CHECK(complaints("fixtures/a.h",
                     "#include \"harness/contract/field.h\"\n#include \"fixtures/fill.h\"\n#include "
                     "\"harness/host/timer.h\"\n")
              .empty());
    for (const auto sibling : kSiblings)
      for (const auto room : {"judge", "cli"}) {
        const auto line = fmt::format("#include \"harness/{}/a.h\"\n", room);
        CHECK(complaints(fmt::format("{}/a.cpp", sibling), line).size() == 1);
      }
  }

  TEST_CASE("the judge knows nobody, the program everybody, and nothing is below the contract") {
    for (const auto sibling : kSiblings) {
      const auto line = fmt::format("#include \"{}/a.h\"\n", sibling);
      for (const auto room : {"contract", "host", "judge"})
        CHECK(complaints(fmt::format("harness/{}/a.cpp", room), line).size() == 1);
      CHECK(complaints("harness/cli/main.cpp", line).empty());
    }
    CHECK(complaints("harness/judge/compare.cpp", "#include \"harness/cli/a.h\"\n").size() == 1);
    CHECK(complaints("harness/judge/compare.cpp", "#include \"harness/contract/field.h\"\n").empty());
    CHECK(complaints("harness/contract/field.h", "#include \"harness/host/a.h\"\n").size() == 1);
    CHECK(complaints("harness/contract/field.h", "#include \"harness/judge/a.h\"\n").size() == 1);
    CHECK(complaints("harness/host/a.h", "#include \"harness/judge/a.h\"\n").size() == 1);
  }

  TEST_CASE("no two files share a name") {
    std::map<std::string, std::string> seen;
    for (const auto& path : sources(".")) {
      const auto name = fs::path(path).filename().string();
      if (name == "meson.build" || name == "__init__.py") continue;
      const auto [first, is_new] = seen.emplace(name, path);
      if (!is_new) FAIL_CHECK(fmt::format("{} and {} share a name", first->second, path));
    }
  }

  TEST_CASE("no two types share a name") {
    TypeNames names;
    for (const auto& path : sources("."))
      if (is_code(path))
        for (const auto& complaint : names.complaints(path, read(path))) FAIL_CHECK(complaint);
  }

  TEST_CASE("a type's second definition is found, a declaration, a use and the same alias are none") {
    TypeNames names;
    CHECK(names.complaints("a.h", "struct Place {\n};\nusing K = Kind;\nenum class Sum { A };\n").empty());
    CHECK(names.complaints("b.h", "struct Place;\nclass Place* p;\nusing K = Kind;\n  struct Place {};\n")
              .empty());
    CHECK(names.complaints("c.cpp", "struct Place find() {\ntemplate <>\nstruct Place<int> {\n").empty());
    for (const char* text :
         {"struct Place {\n", "class Place final : public Other {\n", "class Place\n    : Other {\n",
          "enum class Place : int { A };\n", "struct alignas(16) Place {\n", "union Place {",
          "template <class T> struct Place {\n", "using Place = int;\n", "using K = int;\n"})
      CHECK_MESSAGE(names.complaints("d.cpp", text).size() == 1, text);
    CHECK(names.complaints("e.cu", "enum class Sum : int { B };\n") ==
          std::vector<std::string>{"a.h and e.cu both define Sum"});
  }

  TEST_CASE("a line of 110 characters passes, one more does not, but in a table") {
    const std::string line(kMostColumns, 'x');
    CHECK(complaints("harness/a.cpp", line + "\n").empty());
    CHECK(complaints("harness/a.cpp", line.substr(1) + "\u00b1\n").empty());
    CHECK(complaints("harness/a.cpp", line + "x\n").size() == 1);
    CHECK(complaints("gpu/a.cu", "// clang-format off\n" + line + "x\n// clang-format on\n").empty());
    CHECK(complaints("gpu/a.cu", "// clang-format off\n// clang-format on\n" + line + "x\n").size() == 1);
    CHECK(complaints("README.md", line + "x\n").empty());
  }

  TEST_CASE("includes are written from the root") {
    CHECK(complaints("harness/judge/a.cpp", "#include \"field.h\"\n").size() == 1);
    CHECK(complaints("harness/judge/a.cpp", "#include \"../contract/field.h\"\n").size() == 1);
    CHECK(complaints("harness/judge/a.cpp", "#include \"harness/field.h\"\n").size() == 1);
    CHECK(complaints("harness/judge/a.cpp", "#include \"revision.h\"\n").size() == 1);
    CHECK(complaints("harness/cli/a.cpp", "#include \"revision.h\"\n").empty());
  }

  TEST_CASE("other projects' headers stay in their folder") {
    for (const auto& [header, folders] : kOwned) {
      const auto line = fmt::format("#include <{}>\n", header);
      CHECK(complaints("harness/a.h", line).size() == 1);
      for (const auto folder : folders) CHECK(complaints(fmt::format("{}/a.cpp", folder), line).empty());
    }
    CHECK(complaints("reference_cpu/a.cpp", "#include <cuda_runtime.h>\n").size() == 1);
    CHECK(complaints("gpu/a.cu", "#include <Eigen/Dense>\n").size() == 1);
    CHECK(complaints("harness/a.cpp", "#include <vector>\n").empty());
  }

  TEST_CASE("a file of 350 lines passes, one more does not") {
    std::string text;
    for (std::size_t i = 0; i < kMostLines; ++i) text += "x\n";
    CHECK(complaints("harness/a.cpp", text).empty());
    CHECK(complaints("golden/python/a.py", text + "x\n").size() == 1);
    CHECK(complaints("harness/a.cpp", text + "x").size() == 1);
    CHECK(complaints("README.md", text + "x\n").empty());
  }

  TEST_CASE("paths of somebody's machine are refused") {
    CHECK(complaints("README.md", std::string("see /wo") + "rk/notes\n").size() == 1);
    CHECK(complaints("golden/a.py", std::string("open('/ho") + "me/me/x')\n").size() == 1);
    CHECK(complaints("golden/a.py", "a network / work in progress\n").empty());
  }
}
