#include "reference_cpu/eigen/plain_matrix.h"

#include <algorithm>
#include <vector>

namespace assay::plain {
namespace {

constexpr std::int64_t kRowsAtOnce = 32;  // of a weight matrix: as doubles they stay in the second cache

/// Rows [begin, begin + rows) of a bf16 matrix with k columns.
Matrix widened(std::span<const Bf16> w, std::int64_t begin, std::int64_t rows, std::int64_t k) {
  Matrix out(rows, k);
  const Bf16* from = w.data() + begin * k;
  std::transform(from, from + rows * k, out.data(), [](Bf16 x) -> double { return to_float(x); });
  return out;
}

Matrix widened_floats(std::span<const float> w, std::int64_t begin, std::int64_t rows, std::int64_t k) {
  Matrix out(rows, k);
  std::copy_n(w.data() + begin * k, rows * k, out.data());
  return out;
}

}  // namespace

Matrix widened(const Tensor& tensor) {
  const std::int64_t rows = tensor.shape().at(0);
  const std::int64_t columns = tensor.shape().at(1);
  if (tensor.dtype() == DType::BFloat16) return widened(tensor.as<Bf16>(), 0, rows, columns);
  if (tensor.dtype() == DType::Float32) return widened_floats(tensor.as<float>(), 0, rows, columns);
  return Eigen::Map<const Matrix>(tensor.as<double>().data(), rows, columns);
}

Matrix widened(const Tensor& tensor, const IndexVector& rows) {
  if (tensor.dtype() == DType::Float64) return widened(tensor)(rows, Eigen::all);
  const std::int64_t columns = tensor.shape().back();
  Matrix out(rows.size(), columns);
  for (std::int64_t r = 0; r < rows.size(); ++r)
    out.row(r) = tensor.dtype() == DType::Float32 ? widened_floats(tensor.as<float>(), rows[r], 1, columns)
                                                  : widened(tensor.as<Bf16>(), rows[r], 1, columns);
  return out;
}

Matrix times_transposed(const Matrix& x, std::span<const Bf16> w) {
  const std::int64_t k = x.cols();
  const std::int64_t n = static_cast<std::int64_t>(w.size()) / k;
  Matrix out(x.rows(), n);
  for (std::int64_t i = 0; i < n; i += kRowsAtOnce) {
    const std::int64_t rows = std::min(kRowsAtOnce, n - i);
    out.middleCols(i, rows).noalias() = x * widened(w, i, rows, k).transpose();
  }
  return out;
}

Matrix times(const Matrix& x, std::span<const Bf16> w, std::int64_t k) {
  Matrix out = Matrix::Zero(x.rows(), k);
  for (std::int64_t i = 0; i < x.cols(); i += kRowsAtOnce) {
    const std::int64_t rows = std::min(kRowsAtOnce, x.cols() - i);
    out.noalias() += x.middleCols(i, rows) * widened(w, i, rows, k);
  }
  return out;
}

RowVector largest_magnitudes(std::span<const Bf16> w, std::int64_t k, bool transposed) {
  const auto n = static_cast<std::int64_t>(w.size()) / k;
  std::vector<std::uint16_t> most(static_cast<std::size_t>(n));
  const std::int64_t rows = transposed ? k : n;
  const std::int64_t columns = transposed ? n : k;
  for (std::int64_t r = 0; r < rows; ++r) {
    const Bf16* line = w.data() + r * columns;
    if (transposed) {
      for (std::int64_t c = 0; c < columns; ++c)
        most[static_cast<std::size_t>(c)] =
            std::max(most[static_cast<std::size_t>(c)], static_cast<std::uint16_t>(line[c].bits & 0x7fff));
    } else {
      std::uint16_t top = 0;
      for (std::int64_t c = 0; c < columns; ++c)
        top = std::max(top, static_cast<std::uint16_t>(line[c].bits & 0x7fff));
      most[static_cast<std::size_t>(r)] = top;
    }
  }
  RowVector sizes(n);
  for (std::int64_t i = 0; i < n; ++i) sizes[i] = to_float(Bf16{most[static_cast<std::size_t>(i)]});
  return sizes;
}

}  // namespace assay::plain
