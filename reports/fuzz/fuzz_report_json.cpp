// A saved report: read, and written again in every form. No text of it reaches a terminal or a page raw.
#include <cstdint>
#include <string>
#include <string_view>

#include "harness/contract/error.h"
#include "reports/html/html.h"
#include "reports/json.h"
#include "reports/junit.h"
#include "reports/text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto report = assay::report_from_json(text);
    const auto json = assay::to_json(report);
    if (assay::to_json(assay::report_from_json(json)) != json) __builtin_trap();
    assay::TextOptions everything;
    everything.verbose = true;
    if (assay::render_text(report, everything).find('\x1b') != std::string::npos) __builtin_trap();
    assay::render_junit(report);
    if (assay::render_html(report).find('\x1b') != std::string::npos) __builtin_trap();
  } catch (const assay::InputError&) {
  }
  return 0;
}
