// A Report for the terminal.
#pragma once

#include <string>
#include <vector>

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

/// The same text in pieces, for cases that are printed as soon as they are judged: head, add for each, tail.
class TextStream {
 public:
  /// `planned` is how many cases there will be, as far as that is known.
  TextStream(const TextOptions& options, std::size_t planned) : options_(options), planned_(planned) {}

  std::string head(const Report& report) const;
  std::string add(const CaseResult& result);
  std::string tail(const Report& report) const;

 private:
  TextOptions options_;
  std::size_t planned_;
  bool in_lines_ = false;            // the last case was a line
  std::vector<std::size_t> widths_;  // of the columns of lines printed before
};

}  // namespace assay
