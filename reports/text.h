// A Report for the terminal.
#pragma once

#include <string>

#include "harness/contract/report.h"

namespace assay {

struct TextOptions {
  bool colour = false;
  int width = 110;       // columns; tables drop detail to fit, sentences wrap
  bool verbose = false;  // tables and worst elements of passing cases too, whatever their number
};

/// Cases in their order: a table each for what did not pass, and for what passed when there are at most two
/// cases; a line each otherwise. The last line sums up. UTF-8, ends with a newline.
std::string render_text(const Report& report, const TextOptions& options = {});

}  // namespace assay
