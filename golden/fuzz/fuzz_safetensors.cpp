// A safetensors file: its header, and that every tensor lies inside it.
#include "golden/fuzz/fuzzed_file.h"
#include "golden/safetensors.h"
#include "harness/contract/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const assay::fuzz::FuzzedFile file(std::as_bytes(std::span(data, size)));
  try {
    const auto opened = assay::open_safetensors(file.path());
    for (const auto& [name, tensor] : opened.tensors) {
      if (tensor.begin > size || tensor.size > size - tensor.begin) __builtin_trap();
      std::vector<std::byte> bytes(tensor.size);
      opened.source->read(tensor.begin, bytes);
    }
  } catch (const assay::InputError&) {
  }
  return 0;
}
