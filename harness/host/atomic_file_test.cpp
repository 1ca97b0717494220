#include "harness/host/atomic_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstddef>
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

/// Makes the system refuse fchmod in this process, as a FAT file system does. False where that cannot be had.
bool refuse_fchmod() {
  sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_fchmod, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {4, rules};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
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

  TEST_CASE("a FIFO that nobody reads is one sentence at once; one that is read takes the bytes") {
    const Folder folder;
    const fs::path fifo = folder.path / "fifo";
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    CHECK(refusal(fifo, "x").find("it is a FIFO that nobody reads") != std::string::npos);
    const int reader = ::open(fifo.c_str(), O_RDONLY | O_NONBLOCK);
    CHECK(refusal(fifo, "x") == "written");
    char byte = 0;
    CHECK(::read(reader, &byte, 1) == 1);
    CHECK(byte == 'x');
    ::close(reader);
    CHECK(fs::is_fifo(fifo));
  }

  TEST_CASE("a file system that keeps no permissions takes the file all the same") {
    const Folder folder;
    const fs::path file = folder.path / "out.json";
    constexpr int kNoFilter = 77;
    const pid_t child = ::fork();
    if (child == 0) {
      if (!refuse_fchmod()) ::_exit(kNoFilter);
      ::_exit(refusal(file, "whole") == "written" ? 0 : 1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == kNoFilter) {
      MESSAGE("this system lets no process refuse its own calls");
      return;
    }
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(content(file) == "whole");
    CHECK(entries(folder.path) == 1);
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
