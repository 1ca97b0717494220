// The JSON texts in a golden's attributes. The first byte says which one follows.
#include <string>

#include "golden/schema.h"
#include "harness/contract/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 4) {
      case 0: {
        const auto config = assay::parse_config(text);
        if (!(assay::parse_config(assay::config_json(config)) == config)) __builtin_trap();
        break;
      }
      case 1: {
        const auto accumulators = assay::parse_accumulators(text);
        if (!(assay::parse_accumulators(assay::accumulators_json(accumulators)) == accumulators))
          __builtin_trap();
        break;
      }
      case 2: assay::parse_strings(text, "fuzz"); break;
      default: assay::parse_hashes(text, "fuzz");
    }
  } catch (const assay::InputError&) {
  }
  return 0;
}
