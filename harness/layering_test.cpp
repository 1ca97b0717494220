// The order of the folders, held by a test: it reads the source tree (the working directory is the tree's
// root).
#include "harness/layering_rules.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

namespace fs = std::filesystem;
using namespace layering;

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
    CHECK(complaints("harness/cli/a.cpp", "#include \"data_dir.h\"\n").size() == 1);
    CHECK(complaints("reference_cpu/a.cpp", "#include \"data_dir.h\"\n").empty());
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
