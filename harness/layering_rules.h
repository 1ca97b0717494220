// The rules of the source tree: which folder may include which, how long files and lines may be, and that no
// two files or types share a name. Held by layering_test.cpp.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace layering {

inline constexpr std::string_view kSiblings[] = {"fixtures", "reference_cpu", "gpu", "golden", "reports"};
// The rooms of harness/: what two sides agree on, what touches the machine, who compares, the program.
inline constexpr std::string_view kRooms[] = {"harness/contract", "harness/host", "harness/judge",
                                              "harness/cli"};
inline constexpr std::size_t kMostLines = 350;
inline constexpr std::size_t kMostColumns = 110;

/// Headers of other projects, by how their path starts, and the folders that may include them.
struct OwnedHeader {
  std::string_view start;
  std::vector<std::string_view> folders;
};
extern const std::vector<OwnedHeader> kOwned;

struct TypeDefinition {
  std::string path;
  std::string line;
};

/// Types of one name in two places. The same alias of the same type, word for word, is one type.
class TypeNames {
 public:
  /// What a file's types have in common with those of the files before it.
  std::vector<std::string> complaints(const std::string& path, const std::string& text);

 private:
  std::map<std::string, TypeDefinition> seen_;
};

/// Everything wrong with one file's text. `path` from the root, with slashes.
std::vector<std::string> complaints(const std::string& path, const std::string& text);

bool is_code(const std::string& path);

/// Paths from the root, with slashes: our folders and the files beside them.
std::vector<std::string> sources(const std::filesystem::path& root);

std::string read(const std::filesystem::path& path);

}  // namespace layering
