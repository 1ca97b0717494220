// Columns in another order, found by equal bits: transposed, reshaped, reversed, rotated, or any permutation.
#include <algorithm>
#include <cmath>
#include <memory>
#include <unordered_map>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

constexpr std::int64_t kProbed = 64;     // elements that a family is tried on first
constexpr double kProbeEqual = 0.9;      // of them must hold the bits that it gives
constexpr std::int64_t kFewestRows = 2;  // whose columns are told apart by their bits
constexpr std::int64_t kMostElements = std::int64_t{1} << 24;

using ColumnMap = std::function<std::int64_t(std::int64_t)>;  // column of the right result that stands here

class ColumnSearch {
 public:
  ColumnSearch(const Evidence& evidence, const ErrorPlace& place)
      : evidence_(evidence), window_(place.window) {
    const std::int64_t size = static_cast<std::int64_t>(window_.size());
    const std::int64_t step = std::max<std::int64_t>(1, size / kProbed) | 1;  // odd: it visits all columns
    for (std::int64_t i = 0; i < size && std::ssize(probed_) < kProbed; i += step) {
      const auto columns = std::ssize(window_.columns);
      probed_.push_back({window_.rows[static_cast<std::size_t>(i / columns)],
                         window_.columns[static_cast<std::size_t>(i % columns)]});
    }
  }

  std::vector<Proposal> proposals() {
    const std::int64_t n = evidence_.width;
    if (n < 2) return {};
    transposed();
    if (evidence_.field == Field::topk_weights) return std::move(all_);
    const std::int64_t half = n / 2;
    if (n % 2 == 0) {
      offer("the halves of the columns are exchanged",
            [half](std::int64_t c) { return (c + half) % (2 * half); });
      offer("the columns of both halves are reversed",
            [half](std::int64_t c) { return c < half ? half - 1 - c : 3 * half - 1 - c; });
    }
    offer("the columns are reversed", [n](std::int64_t c) { return n - 1 - c; });
    reshaped();
    rotated();
    if (all_.empty()) any();
    return std::move(all_);
  }

 private:
  bool plausible(const ColumnMap& from) const {
    std::int64_t equal = 0;
    for (const auto& [r, c] : probed_)
      equal += evidence_.out[index(evidence_, r, c)] == evidence_.reference[index(evidence_, r, from(c))];
    return static_cast<double>(equal) >= kProbeEqual * static_cast<double>(probed_.size());
  }

  void offer(std::string sentence, const ColumnMap& from) {
    if (!plausible(from)) return;
    all_.push_back({"columns_permuted", std::move(sentence),
                    by_element([&evidence = evidence_, from](std::int64_t r, std::int64_t c) {
                      return evidence.reference[index(evidence, r, from(c))];
                    }),
                    std::ssize(window_.rows) == evidence_.rows});  // columns that stay are part of the order
  }

  /// Every matrix stored column by column, [height, width] as [width, height]: rows and columns of any shape.
  void transposed() {
    const bool by_expert = row(evidence_.field).rows == RowsAre::ExpertMatrix;
    const std::int64_t height =
        by_expert ? matrix_rows_of(evidence_.field, evidence_.layer->problem->sizes()) : evidence_.rows;
    const std::int64_t width = evidence_.width;
    if (height < 2) return;
    const auto at = [&evidence = evidence_, height, width](std::int64_t r, std::int64_t c) {
      const std::int64_t flat = r % height * width + c;
      return index(evidence, r / height * height + flat % height, flat / height);
    };
    std::int64_t equal = 0;
    for (const auto& [r, c] : probed_)
      equal += evidence_.out[index(evidence_, r, c)] == evidence_.reference[at(r, c)];
    if (static_cast<double>(equal) < kProbeEqual * static_cast<double>(probed_.size())) return;
    all_.push_back({"stored_transposed",
                    fmt::format("{} stored transposed, [{}, {}] as [{}, {}]",
                                by_expert ? matrices(height) : "the field is", height, width, width, height),
                    by_element([&evidence = evidence_, at](std::int64_t r, std::int64_t c) {
                      return evidence.reference[at(r, c)];
                    }),
                    true});
  }

  /// "every expert's matrix is", or those in which the error lies.
  std::string matrices(std::int64_t height) const {
    const std::int64_t experts = evidence_.rows / height;
    std::vector<bool> wrong(static_cast<std::size_t>(experts));
    for (const auto r : window_.rows) wrong[static_cast<std::size_t>(r / height)] = true;
    const auto count = std::ranges::count(wrong, true);
    if (count == experts) return "every expert's matrix is";
    if (count == 1)
      return fmt::format("expert {}'s matrix is", std::ranges::find(wrong, true) - wrong.begin());
    return fmt::format("the matrices of {} of {} experts are", count, experts);
  }

  /// [A, B, b] stored as [B, A, b]: blocks of b columns dealt out, and gathered again.
  void reshaped() {
    const std::int64_t n = evidence_.width;
    for (std::int64_t parts = 2; parts <= n / 2; ++parts) {
      if (n % parts != 0) continue;
      const std::int64_t length = n / parts;
      for (std::int64_t block = 1; block < length; ++block) {
        if (length % block != 0) continue;
        const auto what = parts == 2 ? std::string("the two halves of the columns alternate")
                                     : fmt::format("the {} parts of the columns take turns", parts);
        offer(fmt::format("{} in blocks of {}", what, block), [=](std::int64_t c) {
          const std::int64_t i = c % block;
          const std::int64_t part = c / block % parts;
          const std::int64_t j = c / block / parts;
          return part * length + j * block + i;
        });
      }
    }
  }

  void rotated() {
    const std::int64_t n = evidence_.width;
    for (std::int64_t by = 1; by < n; ++by) {
      // The first probed element decides for most.
      const auto& [r, c] = probed_.front();
      if (evidence_.out[index(evidence_, r, c)] != evidence_.reference[index(evidence_, r, (c + by) % n)])
        continue;
      const bool left = by <= n / 2;
      offer(
          fmt::format("the columns are rotated by {} to the {}", left ? by : n - by, left ? "left" : "right"),
          [n, by](std::int64_t c) { return (c + by) % n; });
    }
  }

  /// Columns that hold, bit for bit, what other columns should in every row.
  void any() {
    const std::int64_t n = evidence_.width;
    if (evidence_.rows < kFewestRows || evidence_.rows * n > kMostElements) return;
    const auto hash = [&](auto bits, std::int64_t c) {
      std::uint64_t value = 0xcbf29ce484222325u;  // FNV-1a
      for (std::int64_t r = 0; r < evidence_.rows; ++r)
        value = (value ^ bits[index(evidence_, r, c)].bits()) * 0x100000001b3u;
      return value;
    };
    std::unordered_map<std::uint64_t, std::int64_t> home;
    for (std::int64_t c = n; c-- > 0;) home[hash(evidence_.reference, c)] = c;
    auto map = std::make_shared<std::vector<std::int64_t>>(static_cast<std::size_t>(n));
    std::int64_t moved = 0;
    std::int64_t first = -1;
    for (std::int64_t c = 0; c < n; ++c) {
      const auto found = home.find(hash(evidence_.out, c));
      (*map)[static_cast<std::size_t>(c)] = found == home.end() ? c : found->second;
      if (found == home.end() || found->second == c) continue;
      if (moved++ == 0) first = c;
    }
    if (moved == 0) return;
    offer(fmt::format("{} columns are permuted (column {} holds that of column {})", moved, first,
                      (*map)[static_cast<std::size_t>(first)]),
          [map](std::int64_t c) { return (*map)[static_cast<std::size_t>(c)]; });
  }

  struct Probe {
    std::int64_t row;
    std::int64_t column;
  };
  const Evidence& evidence_;
  const Window& window_;
  std::vector<Probe> probed_;
  std::vector<Proposal> all_;
};

}  // namespace

std::vector<Proposal> propose_columns(const Evidence& evidence, const ErrorPlace& place) {
  if (place.window.size() == 0) return {};
  return ColumnSearch(evidence, place).proposals();
}

}  // namespace assay
