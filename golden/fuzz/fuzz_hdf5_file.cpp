// A whole HDF5 file, through the child that reads metadata: read as a golden, and inspected.
#include "golden/fuzz/fuzzed_file.h"
#include "golden/golden_file.h"
#include "harness/contract/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const assay::fuzz::FuzzedFile file(std::as_bytes(std::span(data, size)));
  try {
    assay::read_golden(file.path(), {});
  } catch (const assay::InputError&) {
  }
  try {
    assay::inspect_file(file.path());
  } catch (const assay::InputError&) {
  }
  return 0;
}
