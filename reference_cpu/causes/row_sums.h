// Gradients of weights as sums over rows, for the search of causes: a matrix summed over other rows than its
// own, and how much of each row a wrong matrix has, fitted from its elements.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "reference_cpu/causes/causes.h"

namespace assay {

/// One addend of a matrix: `factor` times a row of the left operand, times a row of the right one.
struct RowTerm {
  std::int64_t left = 0;
  std::int64_t right = 0;
  float factor = 1.0f;
};
using RowTerms = std::vector<RowTerm>;
/// The addends of a matrix, in the order of the sum.
using TermsOfMatrix = std::function<RowTerms(std::int64_t matrix)>;

/// The operands behind d_down_proj, d_gate_up_proj or d_gate. Fields that are one matrix have matrix 0.
class RowSums {
 public:
  explicit RowSums(const Evidence& evidence);

  const Evidence& evidence() const { return *evidence_; }
  std::int64_t matrices() const { return matrices_; }
  std::int64_t height() const { return height_; }  // rows of a matrix
  std::int64_t width() const { return evidence_->width; }
  std::int64_t left_rows() const { return std::ssize(left_) / height_; }
  std::int64_t right_rows() const { return std::ssize(right_) / width(); }
  /// Those that the matrix should have.
  RowTerms own(std::int64_t matrix) const;
  /// The term of a row of the left operand: with the row of the right one that belongs to it.
  RowTerm term(std::int64_t left) const;
  /// Rows of the left operand around a matrix's own, in expert order: `after` 0 is the first behind them, -1
  /// the last before. Nothing where there is none.
  std::optional<RowTerm> neighbour(std::int64_t matrix, std::int64_t after) const;

  double left(std::int64_t row, std::int64_t i) const {
    return left_[static_cast<std::size_t>(row * height_ + i)].value;
  }
  double right(std::int64_t row, std::int64_t c) const {
    return right_[static_cast<std::size_t>(row * width() + c)].value;
  }

  /// Stored bits of a window whose matrices have other terms; `bf16_every_term`: the running sum is rounded
  /// after every term, one by one in fp32.
  std::vector<Stored> bits(const Window& window, const TermsOfMatrix& terms,
                           bool bf16_every_term = false) const;

 private:
  /// Sums of one matrix, not yet stored: [rows, columns] of the window, rows counted within the matrix.
  std::vector<float> part(std::span<const std::int64_t> rows, std::span<const std::int64_t> columns,
                          const RowTerms& terms, bool bf16_every_term) const;

  /// A sum as the field keeps it: rounded where the contract rounds products, added to what was there.
  Stored kept(float sum, std::size_t at) const;

  const Evidence* evidence_;
  StoredSpan before_;  // the field before this pass; empty where there was nothing
  ProductId id_;
  std::int64_t matrices_ = 1;
  std::int64_t height_ = 0;
  Values<Predicted> left_;   // [left rows, height]
  Values<Predicted> right_;  // [right rows, width]
};

/// What the elements of one wrong matrix say: out - right answer = sum of shares times rows. -1: the row is
/// missing, +1: it is added once more, or from a neighbour; nothing where a share is not told from 0.
struct FittedRows {
  std::int64_t matrix = 0;
  std::vector<double> own;     // shares of its own rows, 0 where nothing is told
  std::vector<double> after;   // of the rows behind them
  std::vector<double> before;  // of the rows before them, the nearest first
};

/// Fits matrices of the place, the ones with the most rows first, at most `most`. Matrices of which nothing
/// is told are left out.
std::vector<FittedRows> fit_rows(const RowSums& sums, const ErrorPlace& place, std::size_t most);

/// Which row of the right operand each term of a matrix was really multiplied with, as far as the elements
/// say: the operand that they are the product with is solved for and looked up among all rows. Empty where it
/// cannot be solved for, or rows are not found.
std::vector<std::int64_t> rows_behind(const RowSums& sums, const ErrorPlace& place, std::int64_t matrix);

}  // namespace assay
