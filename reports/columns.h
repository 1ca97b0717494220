// Aligned columns and wrapped sentences for a terminal.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace assay {

enum class Align { Left, Right };

/// Columns on a terminal that `text` takes: code points, without ANSI colour sequences. No wide characters
/// are expected.
std::size_t display_width(std::string_view text);

/// Rows of cells; every column is as wide as its widest cell, two blanks apart. Missing cells are empty.
struct Columns {
  std::vector<Align> aligns;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::size_t> least = {};  // width that a column has at least: of rows printed before

  std::vector<std::size_t> widths() const;

  std::size_t width() const;
  /// One line per row, each after `indent` blanks, without trailing blanks.
  std::string text(std::size_t indent) const;
};

/// `text` broken at blanks so that lines of `width` are filled; the first line starts with `first`, the
/// others with as many blanks.
std::string wrapped(std::string_view text, std::string_view first, std::size_t width);

}  // namespace assay
