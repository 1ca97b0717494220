#include "harness/host/atomic_file.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>

#include "harness/contract/error.h"

using namespace assay;
namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "atomic_file_test.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string refusal(const fs::path& path, std::string_view bytes) {
  try {
    write_file_atomically(path, bytes);
  } catch (const InputError& error) {
    return error.what();
  }
  return "written";
}

std::ptrdiff_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

}  // namespace

TEST_SUITE("atomic_file") {
  TEST_CASE("a file is written whole, replaced whole, and nothing else appears") {
    const Folder folder;
    const fs::path file = folder.path / "out.json";
    const std::string bytes("a\0b\n", 4);
    write_file_atomically(file, bytes);
    CHECK(content(file) == bytes);
    write_file_atomically(file, "");
    CHECK(content(file).empty());
    CHECK(entries(folder.path) == 1);
  }

  TEST_CASE("permissions follow the umask, or the file that is replaced") {
    const Folder folder;
    const fs::path file = folder.path / "out";
    const mode_t before = ::umask(027);
    write_file_atomically(file, "1");
    ::umask(before);
    CHECK(static_cast<int>(fs::status(file).permissions()) == 0640);
    fs::permissions(file, fs::perms(0604));
    write_file_atomically(file, "2");
    CHECK(static_cast<int>(fs::status(file).permissions()) == 0604);
  }

  TEST_CASE("a symbolic link is followed and stays one") {
    const Folder folder;
    write_file_atomically(folder.path / "real", "old");
    fs::create_symlink("real", folder.path / "link");
    write_file_atomically(folder.path / "link", "new");
    CHECK(fs::is_symlink(folder.path / "link"));
    CHECK(content(folder.path / "real") == "new");
  }

  TEST_CASE("a folder that is not there, or in the way, is named") {
    const Folder folder;
    const std::string missing = refusal(folder.path / "no" / "out.json", "x");
    CHECK(missing.find("no/out.json") != std::string::npos);
    CHECK(missing.find("No such file or directory") != std::string::npos);
    CHECK(refusal(folder.path, "x").find("Is a directory") != std::string::npos);
    CHECK(entries(folder.path) == 0);
  }

  TEST_CASE("a full device is an error, and stays a device") {
    CHECK(refusal("/dev/full", "x").find("No space left on device") != std::string::npos);
    CHECK(fs::is_character_file("/dev/full"));
  }

  TEST_CASE("a write that fails half way keeps the old file and leaves nothing behind") {
    const Folder folder;
    const fs::path file = folder.path / "out.json";
    write_file_atomically(file, "old");
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const rlimit small = {4096, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    const std::string message = refusal(file, std::string(10000, 'x'));
    ::setrlimit(RLIMIT_FSIZE, &before);
    CHECK(message.find("File too large") != std::string::npos);
    CHECK(content(file) == "old");
    CHECK(entries(folder.path) == 1);
  }
}
