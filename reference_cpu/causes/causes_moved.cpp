// Rows in another order, seen by their bits: all of them by one rule (slot order, the neighbour expert's
// matrices, halves in blocks), or each wrong row by what it holds.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <unordered_map>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"
#include "reference_cpu/causes/hypotheses.h"

namespace assay {
namespace {

constexpr std::size_t kSoughtRows = 256;  // wrong rows whose nearest other row is looked for
constexpr std::size_t kMostRows = kSoughtRows * 64;
constexpr std::int64_t kSpan = 2048;  // ... so far away
constexpr std::int64_t kProbed = 64;  // wrong rows that a rule is tried on first
// Legal orders of summation change a few bits of a row: a few ulps of difference in every element, no more.
constexpr double kNear = 0x1p-12;

using RowMap = std::function<std::int64_t(std::int64_t)>;  // row of the right result that stands here

bool is_zero(Stored x) { return ordinal(x) == 0; }

std::uint64_t hash_row(StoredSpan row) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (std::size_t i = 0; i < row.size(); ++i)
    hash = (hash ^ (is_zero(row[i]) ? 0u : row[i].bits())) * 0x100000001b3u;
  return hash;
}

class MovedRows {
 public:
  MovedRows(const Evidence& evidence, const ErrorPlace& place)
      : evidence_(evidence), rows_(place.window.rows) {}

  std::vector<Proposal> proposals() {
    if (evidence_.width < 2 || rows_.empty()) return {};
    try_rules();
    if (all_.empty() && rows_.size() <= kMostRows) look_up();
    return std::move(all_);
  }

 private:
  StoredSpan of(StoredSpan values, std::int64_t r) const {
    return values.subspan(index(evidence_, r, 0), static_cast<std::size_t>(evidence_.width));
  }

  /// Squared distance of a stored row from a right one, no further than `most`; NaN beside another is far.
  double distance(std::int64_t r, std::int64_t right, double most) const {
    const auto out = of(evidence_.out, r);
    const auto reference = of(evidence_.reference, right);
    double sum = 0.0;
    for (std::size_t c = 0; c < out.size() && sum <= most; ++c) {
      if (out[c] == reference[c] || (is_nan(out[c]) && is_nan(reference[c]))) continue;
      const double d = static_cast<double>(to_float(out[c])) - to_float(reference[c]);
      sum += std::isfinite(d) ? d * d : INFINITY;
    }
    return sum;
  }
  double near_enough(std::int64_t r) const {
    const auto out = of(evidence_.out, r);
    double energy = 0.0;
    for (std::size_t c = 0; c < out.size(); ++c)
      if (is_finite(out[c])) energy += static_cast<double>(out.value(c)) * out.value(c);
    return energy * kNear;
  }
  bool holds(std::int64_t r, std::int64_t right) const {
    const double most = near_enough(r);
    return distance(r, right, most) <= most;
  }

  /// A rule for all rows; those that stay are part of it.
  void offer(std::string sentence, const RowMap& from) {
    const auto step = std::max<std::int64_t>(1, std::ssize(rows_) / kProbed);
    bool moves = false;
    for (std::int64_t i = 0; i < std::ssize(rows_); i += step) {
      const std::int64_t r = rows_[static_cast<std::size_t>(i)];
      if (!holds(r, from(r))) return;
      moves = moves || from(r) != r;
    }
    if (!moves) return;
    for (std::int64_t r = 0; r < evidence_.rows; ++r)
      if (!holds(r, from(r))) return;
    add(std::move(sentence), from);
  }

  void add(std::string sentence, const RowMap& from) {
    all_.push_back({evidence_.field == Field::topk_weights ? "weights_of_token" : "moved_rows",
                    std::move(sentence),
                    by_element([&evidence = evidence_, from](std::int64_t r, std::int64_t c) {
                      return evidence.reference[index(evidence, from(r), c)];
                    }),
                    true});
  }

  void try_rules() {
    const auto kind = row(evidence_.field).rows;
    if (kind == RowsAre::ExpertOrder || kind == RowsAre::Slots) try_orders_of_slots(kind);
    if (kind == RowsAre::Tokens) try_batch();
    if (kind == RowsAre::ExpertMatrix) try_matrices();
    const std::int64_t n = evidence_.rows;
    const auto word = row_word(evidence_.field);
    offer(fmt::format("the {}s stand in reverse order", word), [n](std::int64_t r) { return n - 1 - r; });
    for (const std::int64_t by : {1, -1})
      offer(fmt::format("every {} holds the result of the {} {} ({} that of the {})", word, word,
                        by > 0 ? "after" : "before", by > 0 ? "the last" : "the first",
                        by > 0 ? "first" : "last"),
            [n, by](std::int64_t r) { return (r + by + n) % n; });
  }

  void try_orders_of_slots(RowsAre kind) {
    const auto& gather = evidence_.layer->routing.gather;
    const auto slot_in = [&gather](std::int64_t r) -> std::int64_t {
      return gather[static_cast<std::size_t>(r)];
    };
    std::vector<std::int64_t> row_of(gather.size());
    for (std::size_t r = 0; r < gather.size(); ++r)
      row_of[static_cast<std::size_t>(gather[r])] = static_cast<std::int64_t>(r);
    const std::int64_t tokens = evidence_.layer->tokens();
    const std::int64_t top_k = evidence_.layer->config().top_k;
    const auto row_in = [row_of](std::int64_t slot) { return row_of[static_cast<std::size_t>(slot)]; };
    const auto choice_major = [=](std::int64_t i) { return i % tokens * top_k + i / tokens; };
    if (kind == RowsAre::Slots) {
      offer("rows stand in expert order, not in slot order", slot_in);
      offer("rows are permuted the wrong way, as if gather_indices were its inverse",
            [slot_in](std::int64_t s) { return slot_in(slot_in(s)); });
      offer("rows stand by choice before token: slots counted j T + t", choice_major);
      return;
    }
    offer("rows stand in slot order, not in expert order", row_in);
    offer("rows stand by choice before token (slots counted j T + t), not in expert order",
          [row_in, choice_major](std::int64_t i) { return row_in(choice_major(i)); });
    offer("rows in expert order are permuted once more, by gather_indices", slot_in);
    const auto& offsets = evidence_.layer->routing.offsets;
    offer("each expert's rows stand last one first", [&offsets](std::int64_t r) {
      const auto end = std::ranges::upper_bound(offsets, r);
      return *(end - 1) + *end - 1 - r;
    });
  }

  void try_batch() {
    const std::int64_t batch = evidence_.layer->problem->batch;
    const std::int64_t sequence = evidence_.layer->problem->sequence;
    if (batch < 2 || sequence < 2 || batch * sequence != evidence_.rows) return;
    offer("tokens stand [sequence, batch], not [batch, sequence]",
          [batch, sequence](std::int64_t i) { return i % batch * sequence + i / batch; });
  }

  /// Every expert's matrix is another's, or its rows stand in another order, alike in every matrix.
  void try_matrices() {
    const std::int64_t height = matrix_rows_of(evidence_.field, evidence_.layer->problem->sizes());
    const std::int64_t n = evidence_.rows / height;
    const auto of_expert = [height, n](std::int64_t away) {
      return [=](std::int64_t r) { return (r / height + away + n) % n * height + r % height; };
    };
    if (n > 1) {
      offer("every expert has the matrix of the expert before", of_expert(n - 1));
      offer("every expert has the matrix of the next expert", of_expert(1));
    }
    const auto within = [&](std::string sentence, const RowMap& from) {
      offer(std::move(sentence),
            [from, height](std::int64_t r) { return r / height * height + from(r % height); });
    };
    within("the rows of every matrix stand in reverse order",
           [height](std::int64_t i) { return height - 1 - i; });
    if (height % 2 != 0) return;
    const std::int64_t half = height / 2;
    const bool halves = evidence_.field == Field::d_gate_up_proj;
    for (std::int64_t block = 1; block < half; ++block)
      if (half % block == 0)
        within(fmt::format("{} alternate in blocks of {}",
                           halves ? "gate and up rows" : "the two halves of the rows", block),
               [=](std::int64_t i) { return i / block % 2 * half + i / block / 2 * block + i % block; });
  }

  /// Wrong rows that hold, bit for bit or nearly so, what other rows should.
  void look_up() {
    std::unordered_map<std::uint64_t, std::int64_t> home;
    for (std::int64_t r = evidence_.rows; r-- > 0;) home[hash_row(of(evidence_.reference, r))] = r;
    const auto nearest = [&](std::int64_t r) -> std::int64_t {
      std::int64_t best = -1;
      double least = near_enough(r);
      for (std::int64_t other = std::max<std::int64_t>(0, r - kSpan);
           other < std::min(evidence_.rows, r + kSpan); ++other) {
        const double away = distance(r, other, least);
        if (!(away < least)) continue;
        least = away;
        best = other;
      }
      return best;
    };
    const auto all_of = [](StoredSpan row, auto is) {
      for (std::size_t c = 0; c < row.size(); ++c)
        if (!is(row[c])) return false;
      return true;
    };
    std::size_t sought = 0;
    for (const auto r : rows_) {
      const auto own = of(evidence_.out, r);
      if (!all_of(of(evidence_.reference, r), is_zero) && all_of(own, is_zero)) {
        zero_.push_back(r);
        continue;
      }
      if (all_of(own, [](Stored x) { return is_nan(x); })) {
        nan_.push_back(r);
        continue;
      }
      const auto found = home.find(hash_row(own));
      std::int64_t from = found == home.end() ? -1 : found->second;
      if (from < 0 && sought++ < kSoughtRows) from = nearest(r);
      if (from >= 0 && from != r) origin_[r] = from;
    }
    leave_to_other_experts();
    if (origin_.empty() || (origin_.size() + zero_.size() + nan_.size()) * 2 < rows_.size()) return;
    describe();
  }

  /// The same token under another expert's weights is another expert, not another row.
  void leave_to_other_experts() {
    if ((fields_of(evidence_.field) & hypothesis_fields::kWeightProducts) == 0 ||
        row(evidence_.field).rows != RowsAre::ExpertOrder)
      return;
    const auto token = [&](std::int64_t r) {
      return evidence_.layer->routing.gather[static_cast<std::size_t>(r)] / evidence_.layer->config().top_k;
    };
    // Where few of the moved rows belong to the token whose row they hold, they do by chance.
    const auto same = [&](const auto& move) { return token(move.first) == token(move.second); };
    if (2 * std::ranges::count_if(origin_, same) > std::ssize(origin_)) std::erase_if(origin_, same);
  }

  void describe() {
    const auto [first, its] = *origin_.begin();
    const bool offset = std::ranges::all_of(
        origin_, [&](const auto& move) { return move.second - move.first == its - first; });
    const auto word = row_word(evidence_.field);
    const auto number = [&](std::int64_t r) { return row_number(evidence_, r); };
    std::string sentence;
    if (origin_.size() == 1)
      sentence = fmt::format("{} {} holds the result of {} {}", word, number(first), word, number(its));
    else if (origin_.size() == 2 && origin_.contains(its) && origin_.at(its) == first)
      sentence = fmt::format("{}s {} and {} are exchanged", word, number(first), number(its));
    else if (const auto matrices = whole_matrices(); !matrices.empty())
      sentence = matrices;
    else if (offset)
      sentence = fmt::format("{} {}s hold the result of the {} {} {}", origin_.size(), word, word,
                             std::abs(its - first), its > first ? "further on" : "before");
    else
      sentence = fmt::format("{} {}s hold the results of others ({} {} that of {} {})", origin_.size(), word,
                             word, number(first), word, number(its));
    std::vector<std::int64_t> to;
    std::vector<std::int64_t> from;
    for (const auto& [r, other] : origin_) to.push_back(r), from.push_back(other);
    std::ranges::sort(from);
    const bool each_once = std::ranges::adjacent_find(from) == from.end();
    if (offset && each_once && origin_.size() > 1 && !zero_.empty() && std::ranges::equal(from, zero_))
      sentence = fmt::format("{} hold those of {}, which are zero", rows_listed(evidence_, to),
                             rows_listed(evidence_, from));
    else if (!zero_.empty())
      sentence +=
          fmt::format(", and {} {} zero", rows_listed(evidence_, zero_), zero_.size() == 1 ? "is" : "are");
    if (!nan_.empty())
      sentence +=
          fmt::format(", and {} {} NaN", rows_listed(evidence_, nan_), nan_.size() == 1 ? "is" : "are");
    all_.push_back({evidence_.field == Field::topk_weights ? "weights_of_token" : "moved_rows",
                    std::move(sentence),
                    by_element([&evidence = evidence_, origin = origin_, zero = zero_, nan = nan_](
                                   std::int64_t r, std::int64_t c) {
                      if (std::ranges::binary_search(zero, r)) return Stored();
                      if (std::ranges::binary_search(nan, r)) return evidence.out[index(evidence, r, c)];
                      const auto move = origin.find(r);
                      return evidence.reference[index(evidence, move == origin.end() ? r : move->second, c)];
                    }),
                    true});
  }

  /// Moves of whole matrices in words; empty where they are of rows.
  std::string whole_matrices() const {
    if (row(evidence_.field).rows != RowsAre::ExpertMatrix || !zero_.empty() || !nan_.empty()) return "";
    const std::int64_t height = matrix_rows_of(evidence_.field, evidence_.layer->problem->sizes());
    std::map<std::int64_t, std::int64_t> moved;
    for (const auto& [r, other] : origin_) {
      const auto [at, added] = moved.emplace(r / height, other / height);
      if (r % height != other % height || at->second != other / height) return "";
    }
    const auto [to, from] = *moved.begin();
    if (moved.size() == 1) return fmt::format("expert {} has the matrix of expert {}", to, from);
    if (moved.size() == 2 && moved.contains(from) && moved.at(from) == to)
      return fmt::format("the matrices of experts {} and {} are exchanged", to, from);
    return fmt::format("{} experts have the matrices of others (expert {} that of expert {})", moved.size(),
                       to, from);
  }

  const Evidence& evidence_;
  const std::vector<std::int64_t>& rows_;
  std::map<std::int64_t, std::int64_t> origin_;  // wrong row, and whose result it holds
  std::vector<std::int64_t> zero_;
  std::vector<std::int64_t> nan_;
  std::vector<Proposal> all_;
};

}  // namespace

std::vector<Proposal> propose_moved_rows(const Evidence& evidence, const ErrorPlace& place) {
  return MovedRows(evidence, place).proposals();
}

}  // namespace assay
