// What is said of wrong gradients: layouts, slots, the softmax's and the division's gradient, another
// routing, and of gradients that nobody wrote.
#include <fmt/format.h>

#include "reference_cpu/causes/wrong_candidates.h"

using namespace assay;

namespace {

constexpr std::int64_t kTokens = 24;
constexpr std::int64_t kTopK = 4;

struct GaussianLayer {
  Problem problem;
  Candidate right;

  explicit GaussianLayer(bool renormalised = true)
      : problem(random_layer(Data::Gaussian, {64, 32, 8, kTopK, renormalised}, kTokens, 5)),
        right(predict_both_passes(problem, find_contract("hf"), every_product(kHopper))) {}

  std::vector<Cause> planted(const Fault& fault, Field seen_in,
                             std::initializer_list<Field> without = {}) const {
    Candidate wrong = predict_both_passes(problem, find_contract("hf"), every_product(kHopper), fault);
    for (const Field field : without) wrong.fields.erase(field);
    return causes_of(problem, wrong, seen_in);
  }

  /// Of a field whose element (row, column) is the right one of `from(row, column)`.
  template <class From>
  std::string moved(Field field, From from) const {
    return first_sentence(causes_with(problem, right, field,
                                      [&](std::int64_t r, std::int64_t c, const MatrixView<Bf16>& values) {
                                        const auto [row, column] = from(r, c);
                                        return values.row(row)[static_cast<std::size_t>(column)];
                                      }));
  }
  std::int64_t slot_in(std::int64_t row) const {
    return right.fields.at(Field::gather_indices).as<std::int32_t>()[static_cast<std::size_t>(row)];
  }
};

using RowAndColumn = std::pair<std::int64_t, std::int64_t>;

}  // namespace

TEST_SUITE("causes_backward") {
  TEST_CASE("matrices stored transposed, another expert's, or with their rows in blocks are recognised") {
    const GaussianLayer layer;
    CHECK(layer.moved(Field::d_gate_up_proj, [](std::int64_t r, std::int64_t c) {
      return RowAndColumn{r / 64 * 64 + c, r % 64};
    }) == "every expert's matrix is stored transposed, [64, 64] as [64, 64]");
    CHECK(layer.moved(Field::d_down_proj, [](std::int64_t r, std::int64_t c) {
      const std::int64_t flat = r % 64 * 32 + c;
      return RowAndColumn{r / 64 * 64 + flat % 64, flat / 64};
    }) == "every expert's matrix is stored transposed, [64, 32] as [32, 64]");
    CHECK(layer.moved(Field::d_down_proj, [](std::int64_t r, std::int64_t c) {
      const std::int64_t flat = r % 64 * 32 + c;
      return r / 64 == 4 ? RowAndColumn{r / 64 * 64 + flat % 64, flat / 64} : RowAndColumn{r, c};
    }) == "expert 4's matrix is stored transposed, [64, 32] as [32, 64]");
    CHECK(layer.moved(Field::d_down_proj, [](std::int64_t r, std::int64_t c) {
      return RowAndColumn{(r + 7 * 64) % (8 * 64), c};
    }) == "every expert has the matrix of the expert before");
    CHECK(layer.moved(Field::d_down_proj, [](std::int64_t r, std::int64_t c) {
      return RowAndColumn{r / 64 == 2 ? r + 3 * 64 : r, c};
    }) == "expert 2 has the matrix of expert 5");
    CHECK(layer.moved(Field::d_gate_up_proj, [](std::int64_t r, std::int64_t c) {
      const std::int64_t i = r % 64;
      return RowAndColumn{r / 64 * 64 + i / 4 % 2 * 32 + i / 8 * 4 + i % 4, c};
    }) == "gate and up rows alternate in blocks of 4");
  }

  TEST_CASE("rows in slot order, permuted twice or by one are told by their order") {
    const GaussianLayer layer;
    std::vector<std::int64_t> row_of(kTokens * kTopK);
    for (std::int64_t r = 0; r < kTokens * kTopK; ++r) row_of[static_cast<std::size_t>(layer.slot_in(r))] = r;
    for (const Field field : {Field::d_permuted_hidden_states, Field::d_second_gemm, Field::second_gemm}) {
      CAPTURE(name(field));
      CHECK(layer.moved(field, [&](std::int64_t r, std::int64_t c) {
        return RowAndColumn{row_of[static_cast<std::size_t>(r)], c};
      }) == "rows stand in slot order, not in expert order");
      CHECK(layer.moved(field, [&](std::int64_t r, std::int64_t c) {
        return RowAndColumn{layer.slot_in(r), c};
      }) == "rows in expert order are permuted once more, by gather_indices");
    }
    CHECK(layer.moved(Field::hidden_states_unpermute, [&](std::int64_t r, std::int64_t c) {
      return RowAndColumn{layer.slot_in(r), c};
    }) == "rows stand in expert order, not in slot order");
    CHECK(layer.moved(Field::d_input_hidden_states, [](std::int64_t r, std::int64_t c) {
      return RowAndColumn{(r + kTokens - 1) % kTokens, c};
    }) == "every token holds the result of the token before (the first that of the last)");
  }

  TEST_CASE("weighted rows that take the weights of other slots, or other tokens, are told apart") {
    const GaussianLayer layer;
    const auto said = [&](std::int64_t amount) {
      return first_sentence(layer.planted(
          {.kind = FaultKind::RowsInExpertOrder, .field = Field::d_second_gemm, .amount = amount},
          Field::d_second_gemm));
    };
    // A place may follow: some rows are right by luck.
    CHECK(said(0).starts_with("rows in expert order take the weights as they lie in slot order"));
    CHECK(said(1).starts_with("row r reads token r / K, as if rows stood in slot order"));
  }

  TEST_CASE("slots that dX lost are listed, seen in the input's gradient as well") {
    const GaussianLayer layer;
    const Fault half{.kind = FaultKind::DropSlot,
                     .field = Field::d_experts_hidden_states,
                     .amount = kTopK / 2,
                     .first = kTopK - 1};
    CHECK(first_sentence(layer.planted(half, Field::d_experts_hidden_states)) ==
          "the last half of the slots is left out");
    CHECK(
        first_sentence(layer.planted(half, Field::d_input_hidden_states, {Field::d_experts_hidden_states})) ==
        "in d_experts_hidden_states, which was not written, the last half of the slots is left out");
    const Fault three{.kind = FaultKind::DropSlot, .field = Field::d_experts_hidden_states, .first = 2};
    CHECK(first_sentence(layer.planted(three, Field::d_experts_hidden_states)) ==
          "slots 0 to 2 are left out of the sum");
  }

  TEST_CASE(
      "wrong gradients of the logits are named, although the residues of unchosen ones are legal zeros") {
    const GaussianLayer layer;
    const auto selected = layer.right.fields.at(Field::selected_experts).as<std::int32_t>();
    const auto doubled =
        causes_with(layer.problem, layer.right, Field::d_router_logits,
                    [&](std::int64_t t, std::int64_t e, const MatrixView<Bf16>& values) {
                      const auto own = selected.subspan(static_cast<std::size_t>(t * kTopK), kTopK);
                      if (std::ranges::find(own, e) == own.end()) return Bf16{};
                      return round_to_bf16(2.0f * to_float(values.row(t)[static_cast<std::size_t>(e)]));
                    });
    CHECK(first_sentence(doubled) == "results are 2 times what they should be");
    const auto said = [&](Field field, FaultKind kind, std::int64_t amount) {
      return first_sentence(layer.planted({.kind = kind, .field = field, .amount = amount}, field));
    };
    CHECK(said(Field::d_router_logits, FaultKind::NoSoftmaxGradient, 1) ==
          "the gradient of the probabilities is returned, not taken through the softmax");
    CHECK(said(Field::d_topk_weights, FaultKind::NoRenormalisation, 0) ==
          "the gradient is that of the probabilities before they are divided by their sum");
    CHECK(said(Field::d_topk_weights, FaultKind::NoRenormalisation, 1) ==
          "the gradient is divided by the sum of the chosen probabilities");
  }

  TEST_CASE("gradients that were not written are seen through those that were") {
    const GaussianLayer layer;
    CHECK(first_sentence(layer.planted({.kind = FaultKind::NoWeights, .field = Field::d_second_gemm},
                                       Field::d_down_proj, {Field::d_second_gemm})) ==
          "in d_second_gemm, which was not written, the weights are not applied");
    CHECK(first_sentence(layer.planted({.kind = FaultKind::Relu, .field = Field::d_first_gemm},
                                       Field::d_gate_up_proj,
                                       {Field::d_first_gemm, Field::d_permuted_hidden_states})) ==
          "in d_first_gemm, which was not written, the activation and its slope are relu's");
    CHECK(
        first_sentence(layer.planted({.kind = FaultKind::NoRenormalisation, .field = Field::d_router_logits},
                                     Field::d_gate, {Field::d_router_logits})) ==
        "in d_router_logits, which was not written, the division by the sum of the chosen has no gradient");
  }

  TEST_CASE("a backward pass that follows another routing is told, with the token and its experts") {
    const GaussianLayer layer;
    // Token 9's last slot goes to the expert of rank K: forward by the right routing, backward by that.
    const auto logits = layer.right.fields.at(Field::router_logits).as<Bf16>().subspan(9 * 8, 8);
    Candidate other = layer.right;
    const auto selected = other.fields.at(Field::selected_experts).as<std::int32_t>();
    const std::int32_t was = selected[9 * kTopK + 3];
    std::int32_t next = -1;
    for (std::int32_t e = 0; e < 8; ++e) {
      const auto own = selected.subspan(9 * kTopK, kTopK);
      if (std::ranges::find(own, e) != own.end()) continue;
      if (next < 0 ||
          to_float(logits[static_cast<std::size_t>(e)]) > to_float(logits[static_cast<std::size_t>(next)]))
        next = e;
    }
    selected[9 * kTopK + 3] = next;
    for (const auto& field : kFields)
      if (field.id != Field::router_logits && field.id != Field::selected_experts)
        other.fields.erase(field.id);
    const auto upstream = usable_upstream(layer.problem, other.fields);
    const auto bits =
        make_reference(layer.problem, upstream, find_contract("hf"), every_product(kHopper), true)
            ->predicted(Field::d_second_gemm, Mode::Isolated,
                        all_rows(Field::d_second_gemm, layer.problem.sizes()));
    Candidate wrong = layer.right;
    std::ranges::transform(bits, wrong.fields.at(Field::d_second_gemm).as<Bf16>().begin(),
                           [](const PredictedBits& b) { return Bf16{static_cast<std::uint16_t>(b.bits)}; });
    CHECK(first_sentence(causes_of(layer.problem, wrong, Field::d_second_gemm)) ==
          fmt::format("backward follows another routing than forward: token 9 runs expert {}, not {}", next,
                      was));
  }

  TEST_CASE("weighted rows of another gradient of the output are told from noise") {
    const GaussianLayer layer;
    Problem other = layer.problem;
    const auto values = other.output_gradient.as<Bf16>();
    std::ranges::reverse(values);
    Candidate wrong = layer.right;
    const auto of_other = predict_both_passes(other, find_contract("hf"), every_product(kHopper));
    wrong.fields.set(Field::d_second_gemm, of_other.fields.at(Field::d_second_gemm));
    CHECK(first_sentence(causes_of(layer.problem, wrong, Field::d_second_gemm)) ==
          "the rows are the weights times another d_hidden_states than the problem's");
    const auto noise =
        causes_with(layer.problem, layer.right, Field::d_second_gemm,
                    [](std::int64_t r, std::int64_t c, const MatrixView<Bf16>& right) {
                      const float x = to_float(right.row(r)[static_cast<std::size_t>(c)]);
                      const auto mixed = static_cast<std::uint32_t>((r * 64 + c) * 2654435761u);
                      return round_to_bf16(x + static_cast<float>(mixed >> 24) / 256.0f - 0.5f);
                    });
    CHECK(std::ranges::none_of(noise, [](const Cause& one) { return one.hypothesis == "other_gradient"; }));
  }

  TEST_CASE("gradients that are to be added: what is lost is named, and not an order of the sum") {
    GaussianLayer layer;
    for (const Field field : {Field::d_down_proj, Field::d_gate}) {
      Tensor before(DType::BFloat16, expected_shape(field, layer.problem.sizes()));
      const auto values = before.as<Bf16>();
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = round_to_bf16(static_cast<float>(static_cast<std::int64_t>(i % 13) - 6) / 4.0f);
      layer.problem.previous.set(field, std::move(before));
      layer.right = predict_both_passes(layer.problem, find_contract("hf"), every_product(kHopper));
      CAPTURE(name(field));
      const auto said = [&](FaultKind kind) {
        return first_sentence(layer.planted({.kind = kind, .field = field}, field));
      };
      CHECK(said(FaultKind::PreviousOverwritten) == "what was there before is overwritten, not added to");
      CHECK(said(FaultKind::ProductTwice).starts_with("this pass's gradient is added twice"));
    }
    const auto reversed =
        layer.planted({.kind = FaultKind::RowsDescending, .field = Field::d_down_proj}, Field::d_down_proj);
    CHECK((reversed.empty() || reversed.front().hypothesis == "row_order"));
  }
}
