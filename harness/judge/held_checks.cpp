#include "harness/judge/held_checks.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <mutex>
#include <utility>

#include <fmt/format.h>

namespace assay {
namespace {

enum class HashOutcome { AsPredicted, Undetermined, Differing };

using Bf16Words = LargeVector<std::uint16_t>;

/// The prediction of a block, as bits or as words alone, and where it lies.
struct PredictedBlock {
  RowRange rows;
  std::int64_t width = 0;
  LargeVector<PredictedBits> bits;
  std::optional<Bf16Words> words;

  bool empty() const { return !words && bits.empty(); }
  std::span<const PredictedBits> bits_at(RowRange some) const { return at<PredictedBits>(bits, some); }
  std::span<const std::uint16_t> words_at(RowRange some) const { return at<std::uint16_t>(*words, some); }

 private:
  template <class T>
  std::span<const T> at(const LargeVector<T>& all, RowRange some) const {
    return std::span(all).subspan(static_cast<std::size_t>((some.begin - rows.begin) * width),
                                  static_cast<std::size_t>(some.count() * width));
  }
};

/// The words of predicted bits; nothing where some are undetermined.
template <class Word>
std::optional<LargeVector<Word>> words_of(std::span<const PredictedBits> bits) {
  LargeVector<Word> words(bits.size());
  bool open = false;
  for (std::size_t i = 0; i < bits.size(); ++i) {
    words[i] = static_cast<Word>(bits[i].bits);
    open = open || bits[i].undetermined;
  }
  if (open) return {};
  return words;
}

/// "expert 17", "experts 3, 17 and 40 more", or "the field" where one hash stands for all.
std::string parts_in_words(const std::vector<std::int64_t>& parts, std::size_t of) {
  if (of == 1) return "the field";
  constexpr std::size_t kNamed = 3;
  std::string text = parts.size() == 1 ? "expert " : "experts ";
  for (std::size_t i = 0; i < std::min(parts.size(), kNamed); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : ", ", parts[i]);
  if (parts.size() > kNamed) text += fmt::format(" and {} more", parts.size() - kNamed);
  return text;
}

class HeldJudge {
 public:
  HeldJudge(const CompareContext& context, const HeldField& held, const Hasher& hash)
      : context_(context),
        held_(held),
        hash_(hash),
        width_(width_of(context.field, context.sizes)),
        rows_of_part_(rows_of(context.field, context.sizes) /
                      std::max<std::int64_t>(1, std::ssize(held.sha256))) {}

  /// All hashes of a block.
  void add_hashes(const PredictedBlock& block) {
    if (rows_of_part_ == 0) return;
    const std::int64_t first = block.rows.begin / rows_of_part_;
    const std::int64_t end = block.rows.end / rows_of_part_;
    std::vector<HashOutcome> parts(static_cast<std::size_t>(end - first));
#pragma omp parallel for schedule(dynamic) if (end - first > 1)
    for (std::int64_t p = first; p < end; ++p)
      parts[static_cast<std::size_t>(p - first)] = judge_part(
          block, {p * rows_of_part_, (p + 1) * rows_of_part_}, held_.sha256[static_cast<std::size_t>(p)]);
    const std::int64_t elements = rows_of_part_ * width_;
    for (std::int64_t p = first; p < end; ++p) {
      const HashOutcome part = parts[static_cast<std::size_t>(p - first)];
      checks.bits.elements += elements;
      if (part == HashOutcome::AsPredicted) checks.bits.as_predicted += elements;
      if (part == HashOutcome::Undetermined) checks.bits.undetermined += elements;
      if (part == HashOutcome::Undetermined) undetermined_.push_back(p);
      if (part == HashOutcome::Differing) differing_.push_back(p);
    }
  }

  /// Whether some of the stored rows lie in a block.
  bool has_rows(RowRange block) const {
    return std::ranges::any_of(held_.stored, [&](const HeldRows& stored) {
      return stored.first >= block.begin && stored.first < block.end;
    });
  }

  /// The stored rows that lie in a block; `intervals`: of these rows of the field.
  void add_rows(RowRange block, const PredictedBlock* predicted,
                const std::function<LargeVector<Interval>(RowRange)>& intervals) {
    std::int64_t before = 0;
    for (const HeldRows& stored : held_.stored) {
      const RowRange rows{stored.first, stored.first + stored.count};
      const auto out = StoredSpan(held_.rows, held_.dtype)
                           .subspan(static_cast<std::size_t>(before * width_),
                                    static_cast<std::size_t>(stored.count * width_));
      before += stored.count;
      if (rows.begin < block.begin || rows.begin >= block.end) continue;
      context_.first_row = rows.begin;
      comparison_.add(context_, out, intervals(rows));
      if (predicted != nullptr) add(seen_, compare_predicted(context_, out, predicted->bits_at(rows)));
    }
  }

  HeldChecks result(bool binding, std::string accumulator) {
    checks.judgement = comparison_.judgement();
    checks.bits.available = checks.bits.elements > 0;
    checks.bits.binding = binding && checks.bits.available;
    if (checks.bits.available) checks.bits.accumulator = std::move(accumulator);
    checks.bits.differing = std::max(std::ssize(differing_), seen_.differing);
    checks.bits.first = seen_.first;
    const auto parts = held_.sha256.size();
    if (!differing_.empty())
      checks.notes.push_back(
          fmt::format("{} {} another hash than the predicted bits: which elements differ, hashes do not say",
                      parts_in_words(differing_, parts), differing_.size() == 1 ? "has" : "have"));
    if (!undetermined_.empty())
      checks.notes.push_back(fmt::format("{} {} undetermined: no hash is predicted",
                                         parts_in_words(undetermined_, parts),
                                         undetermined_.size() == 1 ? "is" : "are"));
    return std::move(checks);
  }

 private:
  /// One hash: of an expert, or of the whole field.
  HashOutcome judge_part(const PredictedBlock& block, RowRange rows, const std::string& expected) {
    const auto judge = [&](std::span<const std::byte> bytes) {
      return hash_of(bytes) == expected ? HashOutcome::AsPredicted : HashOutcome::Differing;
    };
    if (block.words) return judge(std::as_bytes(block.words_at(rows)));
    const auto judge_bits = [&](const auto& words) {
      return words ? judge(std::as_bytes(std::span(*words))) : HashOutcome::Undetermined;
    };
    return held_.dtype == DType::Float32 ? judge_bits(words_of<std::uint32_t>(block.bits_at(rows)))
                                         : judge_bits(words_of<std::uint16_t>(block.bits_at(rows)));
  }

  /// Experts without rows have gradients of zeros: all of one hash.
  std::string hash_of(std::span<const std::byte> part) {
    const bool zeros = !part.empty() && part[0] == std::byte{} &&
                       std::memcmp(part.data(), part.data() + 1, part.size() - 1) == 0;
    if (!zeros) return hash_(part);
    std::call_once(zeros_hashed_, [&] { hash_of_zeros_ = hash_(part); });
    return hash_of_zeros_;
  }

  HeldChecks checks;
  CompareContext context_;
  const HeldField& held_;
  const Hasher& hash_;
  std::int64_t width_;
  std::int64_t rows_of_part_;
  RoundedComparison comparison_;
  Prediction seen_;  // of the stored rows
  std::vector<std::int64_t> undetermined_;
  std::vector<std::int64_t> differing_;
  std::once_flag zeros_hashed_;
  std::string hash_of_zeros_;  // of a part: all are of one size
};

}  // namespace

std::optional<Unusable> unusable(const HeldField& held, const Sizes& sizes, DType dtype) {
  const Shape expected = expected_shape(held.field, sizes);
  if (held.shape != expected)
    return Unusable{Verdict::WrongShape, fmt::format("expected shape {}, found hashes of {}",
                                                     to_string(expected), to_string(held.shape))};
  if (held.dtype != dtype)
    return Unusable{Verdict::WrongDtype,
                    fmt::format("expected {}, found hashes of {}", row(dtype).name, row(held.dtype).name)};
  return std::nullopt;
}

HeldChecks check_held(CompareContext context, const HeldField& held, Reference& reference, Mode mode,
                      bool binding, const Hasher& hash, const HeldChecks* known) {
  HeldJudge judge(context, held, hash);
  const std::int64_t width = width_of(context.field, context.sizes);
  const bool in_parts = row(context.field).rows == RowsAre::ExpertMatrix;
  // A block's hashes, of which there may be a single one, are taken while the next block is predicted.
  PredictedBlock hashed;
  std::future<void> hashes;
  for (const RowRange block : blocks_of(context.field, context.sizes)) {
    PredictedBlock predicted{block, width, {}, {}};
    if (known == nullptr && held.dtype == DType::BFloat16 && !judge.has_rows(block))
      predicted.words = reference.predicted_words(context.field, mode, block);
    if (known == nullptr && !predicted.words)
      predicted.bits = reference.predicted(context.field, mode, block);
    LargeVector<Interval> whole;
    judge.add_rows(block, predicted.bits.empty() ? nullptr : &predicted, [&](RowRange rows) {
      if (in_parts) return reference.bounded(context.field, mode, rows);
      if (whole.empty()) whole = reference.bounded(context.field, mode, block);
      const auto first = whole.begin() + rows.begin * width;
      return LargeVector<Interval>(first, first + rows.count() * width);
    });
    if (hashes.valid()) hashes.get();
    if (predicted.empty()) continue;
    hashed = std::move(predicted);
    hashes = std::async(std::launch::async, [&] { judge.add_hashes(hashed); });
  }
  if (hashes.valid()) hashes.get();
  HeldChecks checks = judge.result(binding, reference.accumulator(context.field));
  if (known != nullptr) {
    checks.bits = known->bits;
    checks.bits.binding = binding && checks.bits.available;
    checks.notes = known->notes;
  }
  return checks;
}

}  // namespace assay
