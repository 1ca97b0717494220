// Hypotheses about fields that the candidate did not write, seen through the stages after them: every trial
// runs those stages.
#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"
#include "reference_cpu/causes/causes_product.h"
#include "reference_cpu/causes/hypotheses.h"

namespace assay {
namespace {

using K = FaultKind;
using W = Where;
constexpr FieldMask kGrouped = fields_of(Field::first_gemm, Field::second_gemm, Field::d_intermediate);
constexpr FieldMask kProducts = hypothesis_fields::kProducts | fields_of(Field::d_intermediate);
constexpr FieldMask kSwiglu = hypothesis_fields::kSwiglu;
constexpr FieldMask kWeights = hypothesis_fields::kWeights;
constexpr FieldMask kSelection = fields_of(Field::selected_experts);
constexpr FieldMask kWritten = kProducts | kSwiglu | kWeights;
constexpr std::int64_t kAllRows = std::int64_t{1} << 40;
constexpr std::int64_t kAllK = kAllRows;

struct Guess {
  FieldMask fields;
  std::string_view id;
  std::string_view sentence;
  Fault fault;  // its field is the one that was not written
};

// Without parameters, or with those that tiles and formats suggest. Places are found: a guess holds wherever
// the error is.
// clang-format off
constexpr Guess kGuesses[] = {
    {kWritten,  "truncated",             "values are truncated toward zero to bf16",                        {.kind = K::TruncateBf16}},
    {kWritten,  "half_away",             "values are rounded to bf16, ties away from zero",                 {.kind = K::RoundHalfAway}},
    {kWritten,  "rounded_twice",         "values are rounded to 11 bits and then to bf16",                  {.kind = K::RoundTwice}},
    {kProducts, "bf16_accumulation",     "the running sum is rounded to bf16 after every term",             {.kind = K::AccumulateBf16}},
    {kProducts, "fp16_accumulation",     "the running sum is rounded to fp16 after every term",             {.kind = K::AccumulateFp16}},
    {kProducts, "bf16_partial_sums",     "the sums of every 16 of K are rounded to bf16",                   {.kind = K::PartialsBf16, .amount = 16}},
    {kProducts, "bf16_partial_sums",     "the sums of every 32 of K are rounded to bf16",                   {.kind = K::PartialsBf16, .amount = 32}},
    {kProducts, "bf16_partial_sums",     "the sums of every 64 of K are rounded to bf16",                   {.kind = K::PartialsBf16, .amount = 64}},
    {kProducts, "bf16_partial_sums",     "the sums of every 128 of K are rounded to bf16",                  {.kind = K::PartialsBf16, .amount = 128}},
    {kProducts, "product_rounded",       "the sums are rounded to bf16, which the contract keeps",          {.kind = K::PartialsBf16, .amount = kAllK}},
    {kProducts, "k_dropped",             "the last element of K is missing",                                {.kind = K::DropLastK, .amount = 1}},
    {kProducts, "k_dropped",             "the last 2 of K are missing",                                     {.kind = K::DropLastK, .amount = 2}},
    {kProducts, "k_dropped",             "the last 4 of K are missing",                                     {.kind = K::DropLastK, .amount = 4}},
    {kProducts, "k_dropped",             "the last 8 of K are missing",                                     {.kind = K::DropLastK, .amount = 8}},
    {kProducts, "k_dropped",             "the last 16 of K are missing",                                    {.kind = K::DropLastK, .amount = 16}},
    {kProducts, "k_dropped",             "the last 32 of K are missing",                                    {.kind = K::DropLastK, .amount = 32}},
    {kProducts, "k_dropped",             "the last 64 of K are missing",                                    {.kind = K::DropLastK, .amount = 64}},
    {kProducts, "k_dropped",             "the last 128 of K are missing",                                   {.kind = K::DropLastK, .amount = 128}},
    {kProducts, "transposed_weight",     "the weight is read transposed",                                   {.kind = K::TransposedWeights}},
    {kGrouped,  "wrong_expert",          "the weights of the expert before are used",                       {.kind = K::PreviousExpert}},
    {kGrouped,  "wrong_expert",          "the next expert's weights are used",                              {.kind = K::WrongExpert, .amount = kAllRows}},
    {kGrouped,  "wrong_expert",          "the next expert's weights are used in the last row of each",      {.kind = K::WrongExpert, .amount = 1}},
    {kGrouped,  "wrong_expert",          "the next expert's weights are used in the last 2 rows of each",   {.kind = K::WrongExpert, .amount = 2}},
    {kGrouped,  "wrong_expert",          "the expert before's weights are used in the first row of each",   {.kind = K::PreviousExpert, .where = W::FirstRow}},
    {kGrouped,  "zeros",                 "results are zero in the last row of each expert",                 {.kind = K::ZeroLastRow}},
    {kWritten,  "moved_rows",            "every row holds the next row's result",                           {.kind = K::NextRow}},
    {kProducts, "shifted_columns",       "columns are shifted by 8 to the left",                            {.kind = K::ShiftColumns, .amount = 8}},
    {kSwiglu,   "gate_up_swapped",       "gate and up halves are exchanged",                                {.kind = K::SwapGateUp}},
    {kSwiglu,   "gate_up_interleaved",   "gate and up columns are read as interleaved pairs",               {.kind = K::InterleavedGateUp}},
    {kSwiglu,   "up_not_multiplied",     "the product with the up half is missing",                         {.kind = K::UpIgnored}},
    {kSwiglu,   "wrong_activation",      "the activation is relu",                                          {.kind = K::Relu}},
    {kSwiglu,   "wrong_activation",      "the activation is gelu",                                          {.kind = K::Gelu}},
    {kSwiglu,   "wrong_activation",      "the activation is a sigmoid(1.702 a), not a sigmoid(a)",          {.kind = K::QuickGelu}},
    {kSwiglu,   "wrong_activation",      "the function is (up + 1) gate sigmoid(1.702 gate) with gate at most 7 and up within 7, as GPT-OSS has it", {.kind = K::QuickGelu, .amount = 7}},
    {kSwiglu,   "approximate_sigmoid",   "the sigmoid comes from a tanh of 11 bits",                        {.kind = K::TanhApprox}},
    {kSwiglu,   "silu_unrounded",        "silu is not rounded to bf16 before the product",                  {.kind = K::SiluUnrounded}},
    {kSwiglu,   "wrong_token",           "the up half is that of the row after",                            {.kind = K::UpOfNextRow}},
    {kSelection, "other_expert",         "the first expert left out stands in the last slot",               {.kind = K::NextBest}},
    {kSelection, "other_expert",         "the choice is made from probabilities rounded to bf16",           {.kind = K::SelectBf16}},
    {kWeights,  "not_renormalised",      "the weights are not divided by their sum",                        {.kind = K::NoRenormalisation}},
    {kWeights,  "renormalised",          "the weights are divided by their sum",                            {.kind = K::AlwaysRenormalised}},
    {kWeights,  "renormalised_twice",    "the weights are divided by their sum, and once more",             {.kind = K::RenormaliseTwice}},
    {kWeights,  "softmax_over_selected", "the softmax runs over the chosen experts only",                   {.kind = K::SoftmaxOfSelected}},
    {kWeights,  "no_softmax",            "there is no softmax: the weights are sigmoids",                   {.kind = K::SigmoidScores}},
    {kWeights,  "no_softmax",            "there is no softmax: the weights are the logits",                 {.kind = K::RawLogits}},
    {kWeights,  "softmax_over_tokens",   "the softmax runs over the tokens",                                {.kind = K::SoftmaxOverTokens}},
    {kWeights,  "weights_permuted",      "the weights of slots 0 and 1 are exchanged",                      {.kind = K::SwapWeights}},
};
// clang-format on

class Search {
 public:
  Search(const Evidence& evidence, const ErrorPlace& place, const UnwrittenTrials& trials, Field field)
      : evidence_(evidence), place_(place), trials_(trials), field_(field), terms_(terms()) {}

  std::vector<Proposal> proposals() {
    std::vector<Proposal> all;
    // What roundings do to logits, the softmax and the choice make larger.
    const bool large = field_ != Field::router_logits && larger_than_roundings();
    for (const auto& guess : kGuesses) {
      if ((guess.fields & fields_of(field_)) == 0 || beyond_sum(guess.fault)) continue;
      if (large && is_rounding(guess.fault.kind)) continue;
      all.push_back(proposal(guess.id, guess.sentence, guess.fault));
    }
    for (const GradientGuess& guess : gradient_guesses(field_, *evidence_.layer))
      all.push_back(proposal(guess.id, guess.sentence, guess.fault));
    if (field_ == Field::selected_experts) return all;
    if (field_ == Field::intermediate) propose_interleaved(all);
    propose_scales(all);
    if (terms_ > 0) propose_k_blocks(all);
    return all;
  }

 private:
  /// Kinds that move every value by a few units of bfloat16's roundoff u = 2^-9, or by those of the sums of
  /// some blocks.
  static bool is_rounding(K kind) {
    return kind == K::TruncateBf16 || kind == K::RoundHalfAway || kind == K::RoundTwice ||
           kind == K::PartialsBf16 || kind == K::SiluUnrounded || kind == K::TanhApprox;
  }
  /// An error of a quarter of the field's size: 128 u. No cause is named that leaves half of its squares, so
  /// one that moves by less than 0.29 of it is not worth a trial.
  bool larger_than_roundings() const {
    double error_square = 0.0;
    double size = 0.0;
    for (const double e : error()) error_square += e * e;
    for (const double x :
         over_sample([&](std::size_t at) { return static_cast<double>(evidence_.plain[at].value); }))
      size += x * x;
    return error_square > size / 16.0;
  }

  /// Blocks of K as long as the sum; but for one rounding of all of it, where what is read is not rounded.
  bool beyond_sum(const Fault& fault) const {
    if (fault.kind == K::DropLastK) return fault.amount >= terms_;
    if (fault.kind != K::PartialsBf16) return false;
    return fault.amount == kAllK ? !in_registers() : fault.amount >= terms_;
  }
  /// What the field's readers see is not rounded, whatever is stored.
  bool in_registers() const {
    const PrecisionContract& contract = *evidence_.layer->contract;
    return store_of(field_, contract) == Store::Unrounded ||
           (field_ == Field::first_gemm && contract.swiglu_reads == From::Registers);
  }
  std::string beginning() const {
    return rounded_written() ? fmt::format("in {} before its rounding, which was not written, ", name(field_))
                             : in_unwritten(field_);
  }
  bool rounded_written() const { return trials_.rounded_written && trials_.rounded_written(field_); }
  std::int64_t terms() const {
    const auto product = product_of(field_);
    return product ? extent(row(*product).summed, evidence_.layer->problem->sizes()) : 0;
  }

  Proposal proposal(std::string_view id, std::string_view sentence, Fault fault) const {
    fault.field = field_;
    return {id, fmt::format("{}{}", beginning(), sentence),
            [run = trials_.run, fault, &evidence = evidence_](const Window& window) {
              return elements_of(evidence, run(fault, Chosen::Anew), window);
            },
            trials_.some_tokens, field_};
  }

  /// The sample's elements under a fault, less what they are without: the response to it, of weights with the
  /// same experts.
  std::vector<double> response(Fault fault) const {
    fault.field = field_;
    const auto values = trials_.run(fault, Chosen::AsWithout);
    return over_sample(
        [&](std::size_t at) { return static_cast<double>(values[at].value) - evidence_.plain[at].value; });
  }
  std::vector<double> error() const {
    return over_sample([&](std::size_t at) {
      return static_cast<double>(to_float(evidence_.out[at])) - evidence_.plain[at].value;
    });
  }
  template <class Of>
  std::vector<double> over_sample(Of of) const {
    std::vector<double> values;
    for (const auto r : place_.sample.rows)
      for (const auto c : place_.sample.columns) {
        const double value = of(static_cast<std::size_t>(r * evidence_.width + c));
        values.push_back(std::isfinite(value) ? value : 0.0);
      }
    return values;
  }

  struct Fit {
    double times = 0.0;  // least squares: error = times * response
    double explained = 0.0;
  };
  static Fit fit(const std::vector<double>& error, const std::vector<double>& response) {
    double cross = 0.0;
    double square = 0.0;
    double energy = 0.0;
    for (std::size_t i = 0; i < error.size(); ++i) {
      cross += error[i] * response[i];
      square += response[i] * response[i];
      energy += error[i] * error[i];
    }
    if (square == 0.0 || energy == 0.0) return {};
    return {cross / square, cross * cross / (square * energy)};
  }

  /// Gate and up read in alternating blocks: of a power of two, or as a split of the columns leaves them.
  void propose_interleaved(std::vector<Proposal>& all) const {
    const std::int64_t width = evidence_.layer->config().moe_intermediate_size;
    for (std::int64_t block = 2; block < width; ++block)
      if (width % block == 0 &&
          (std::has_single_bit(static_cast<std::uint64_t>(block)) || width / block <= 8))
        all.push_back(proposal("gate_up_interleaved",
                               fmt::format("gate and up columns are read as alternating blocks of {}", block),
                               {.kind = K::InterleavedGateUp, .amount = block}));
  }

  /// A constant factor: what a small one does, times how much of it the error holds.
  void propose_scales(std::vector<Proposal>& all) const {
    constexpr double kSmall = 0x1p-6;
    const auto try_kind = [&](FaultKind kind, std::string_view what) {
      const Fit found = fit(error(), response({.kind = kind, .scale = kSmall}));
      if (found.explained < kWorthTrying) return;
      for (const double factor : likely_factors(1.0 + kSmall * found.times))
        all.push_back(proposal("scaled",
                               fmt::format("{} {:.6g} times what {} should be", what, factor,
                                           kind == K::SiluScaled ? "it" : "they"),
                               {.kind = kind, .scale = factor - 1.0}));
    };
    try_kind(K::ScaleValues, "results are");
    if (field_ == Field::intermediate) try_kind(K::SiluScaled, "silu is");
  }

  Fault block(std::int64_t first, std::int64_t count, double scale) const {
    return {.kind = K::ScaleKBlock, .amount = count, .scale = scale, .first = first};
  }

  /// The stretch of K whose absence looks most like the error: of at most 16 blocks the best, and in it the
  /// best run of at most 16.
  void propose_k_blocks(std::vector<Proposal>& all) const {
    const auto wrong = error();
    const auto block_of = [](std::int64_t terms) {
      return (terms + 16 * 8 - 1) / (16 * 8) * 8;
    };  // a multiple of 8
    std::int64_t begin = 0;
    std::int64_t end = terms_;
    std::int64_t size = block_of(terms_);
    for (;;) {
      std::vector<std::vector<double>> responses;
      for (std::int64_t k = begin; k < end; k += size)
        responses.push_back(response(block(k, std::min(size, end - k), -1.0)));
      Fit best;
      std::size_t first = 0;
      std::size_t last = 0;
      for (std::size_t i = 0; i < responses.size(); ++i) {
        std::vector<double> run(wrong.size(), 0.0);
        for (std::size_t j = i; j < responses.size(); ++j) {
          std::ranges::transform(run, responses[j], run.begin(), std::plus<>());
          const Fit found = fit(wrong, run);
          if (found.explained > best.explained * (1.0 + kWorthTrying * static_cast<double>(j > i)))
            best = found, first = i, last = j;
        }
      }
      // A stretch of one block in 16 resembles the block by a sixteenth of the error and more; garbage
      // resembles the absence of them all.
      const bool all_of_them =
          end - begin == terms_ && responses.size() > 1 && last - first == responses.size() - 1;
      if (best.explained < kWorthTrying / 4 || all_of_them) return;
      const std::int64_t from = begin + static_cast<std::int64_t>(first) * size;
      const std::int64_t to = std::min(end, begin + static_cast<std::int64_t>(last + 1) * size);
      if (best.explained >= kWorthTrying) propose_block(from, to, best.times, all);
      if (block_of(to - from) == size) return;
      begin = from;
      end = to;
      size = block_of(to - from);
    }
  }

  void propose_block(std::int64_t from, std::int64_t to, double times, std::vector<Proposal>& all) const {
    if (to - from == terms_) return;  // the results themselves
    const std::string where = fmt::format("K {} to {}", from, to - 1);
    all.push_back(proposal("k_dropped", where + " are missing", block(from, to - from, -1.0)));
    all.push_back(proposal("k_doubled", where + " are added twice", block(from, to - from, 1.0)));
    if (from >= to - from)
      all.push_back(proposal(
          "k_stale", fmt::format("{} use the left operand of K {} to {}", where, 2 * from - to, from - 1),
          {.kind = K::StaleKBlock, .amount = to - from, .first = from}));
    for (const double factor : likely_factors(1.0 - times))
      if (factor != 0.0 && factor != 2.0)
        all.push_back(proposal("k_scaled",
                               fmt::format("{} are {:.6g} times what they should be", where, factor),
                               block(from, to - from, factor - 1.0)));
  }

  static constexpr double kWorthTrying =
      0.05;  // share of the error that a response has to resemble before it is tried exactly

  const Evidence& evidence_;
  const ErrorPlace& place_;
  const UnwrittenTrials& trials_;
  Field field_;
  std::int64_t terms_;
};

}  // namespace

std::vector<Proposal> propose_unwritten(const Evidence& evidence, const ErrorPlace& place,
                                        const UnwrittenTrials& trials, Field field) {
  if ((fields_of(field) & (kWritten | kSelection | hypothesis_fields::kGradients)) == 0) return {};
  // A sum over all tokens says nothing about some of them; where a problem is large, trials take time: of
  // gradients only the two that the input's is made of are tried.
  const auto kind = row(evidence.field).rows;
  if (trials.some_tokens && (kind == RowsAre::Experts || kind == RowsAre::ExpertMatrix)) return {};
  const bool last = field == Field::d_experts_hidden_states || field == Field::d_router_logits;
  if (trials.some_tokens && row(field).group == Group::Backward && !last &&
      (fields_of(field) & kWritten) == 0)
    return {};
  return Search(evidence, place, trials, field).proposals();
}

}  // namespace assay
