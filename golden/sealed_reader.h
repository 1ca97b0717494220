// Opening an HDF5 file must be safe. The library of HDF5 1.10 crashes on damaged metadata or discloses its
// memory, so it runs in a child process: this very program, started anew (exec), without its environment,
// which reads every file in a fresh copy of itself under limits of memory and time (sealed_task.h). It hands
// back a description of the file's contents (stored_object.h); the parent checks every number of it and reads
// raw bytes itself (stored_dataset.h). A crash or a hang of the library is one sentence.
//
// Every program that links this reader is its own child, tests and fuzz targets too: a constructor of
// sealed_reader.cpp recognises the child's first argument before main() is entered.
#pragma once

#include <filesystem>
#include <memory>

#include "golden/opened_file.h"
#include "golden/stored_object.h"

namespace assay::hdf5 {

/// An opened HDF5 file and what it says about itself.
struct DescribedFile {
  std::shared_ptr<const OpenedFile> bytes;
  StoredObject root;
};

/// Throws InputError naming the path: no regular file, not HDF5, damaged, or more than the limits allow.
DescribedFile describe_file(const std::filesystem::path& path);

}  // namespace assay::hdf5
