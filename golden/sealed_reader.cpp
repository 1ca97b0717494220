#include "golden/sealed_reader.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include <fmt/format.h>

#include "golden/hdf5_handle.h"
#include "golden/hdf5_tree.h"
#include "golden/mapped_file.h"
#include "golden/tree_message.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"
#include "harness/host/sealed_task.h"

namespace assay::hdf5 {
namespace {

constexpr const char* kChildArgument = "--assay-describe-hdf5";

// A golden's description takes 20 kB, 15 MB of memory and some milliseconds.
constexpr TaskLimits kLimits = {.memory = std::uint64_t{512} << 20,
                                .answer = std::uint64_t{64} << 20,
                                .processor_time = std::chrono::seconds(10),
                                .time = std::chrono::seconds(60)};

std::string description(int descriptor) {
  try {
    const auto path = fmt::format("/proc/self/fd/{}", descriptor);
    const MappedFile file(path);
    return encode(read_tree(path, file.bytes()));
  } catch (const std::bad_alloc&) {
    return encode_refusal("its metadata do not fit in memory");
  } catch (const std::exception& error) {
    return encode_refusal(error.what());
  }
}

/// glibc hands constructors the arguments of main(). The child's socket is the last of them.
__attribute__((constructor)) void enter_the_child(int argc, char** argv) {
  if (argc != 3 || std::strcmp(argv[1], kChildArgument) != 0) return;
  H5open();  // once for all copies
  serve_sealed_tasks(std::atoi(argv[2]), description);
}

/// How a task that did not finish ended.
std::string sentence(const ChildEnding& ending) {
  if (ending.how == ChildEnding::How::OutOfTime)
    return fmt::format("HDF5 does not finish reading its metadata within {} s", kLimits.time.count());
  if (ending.how == ChildEnding::How::Signalled && ending.number == SIGXCPU)
    return fmt::format("HDF5 does not finish reading its metadata within {} s of processor time",
                       kLimits.processor_time.count());
  if (ending.how == ChildEnding::How::Signalled && ending.number == SIGXFSZ)
    return fmt::format("its metadata take more than {} MB", kLimits.answer >> 20);
  return fmt::format(
      "its metadata are damaged: HDF5 crashes while it reads them{}",
      ending.how == ChildEnding::How::Signalled ? fmt::format(" (signal {})", ending.number) : "");
}

StoredObject described(const OpenedFile& file) {
  static SealedTasks tasks(kChildArgument, kLimits);
  const auto answer = tasks.run(file.descriptor());
  if (!answer.complete()) throw InputError(sentence(answer.ending));
  return decode(answer.bytes);
}

}  // namespace

DescribedFile describe_file(const std::filesystem::path& path) {
  auto bytes = std::make_shared<const OpenedFile>(path);
  try {
    auto root = described(*bytes);
    return {std::move(bytes), std::move(root)};
  } catch (const InputError& error) {
    throw InputError(printable(fmt::format("cannot read {}: {}", path.string(), error.what())));
  }
}

}  // namespace assay::hdf5
