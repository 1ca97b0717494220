#include "reference_cpu/eigen/plain_step.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "reference_cpu/eigen/plain_layer.h"

namespace assay::plain {
namespace {

constexpr double kUnitRoundoff = 0x1p-53;
constexpr double kUndecided = std::numeric_limits<double>::infinity();

/// Of two sums of n products: 2 gamma_n, and a little for what is done to the sum.
double slack_of(std::int64_t n) { return 2.0 * static_cast<double>(n + 8) * kUnitRoundoff; }

/// Whether a value this far off could be rounded to another bf16.
bool undecided(double x, double slack) {
  return round_to_bf16(x - slack).bits != round_to_bf16(x + slack).bits;
}

/// One step: the rows that are asked for, and what they read.
class Step {
 public:
  Step(Field made, const StepInput& input, const IndexVector& rows)
      : made_(made),
        input_(input),
        config_(input.problem->config),
        contract_(*input.contract),
        routing_(*input.routing),
        rows_(rows) {}

  StepRows run() {
    switch (find_step(made_, contract_)->kind) {
      case StepKind::Product: product(); break;
      case StepKind::Weights: weights(); break;
      case StepKind::Swiglu: swiglu(); break;
      case StepKind::Unpermute:
        out_.values = slots(Field::second_gemm, rows_);
        out_.slack = Matrix::Zero(rows_.size(), out_.values.cols());
        break;
      case StepKind::Merge: merged(); break;
      case StepKind::WeightedRows: weighted_rows(); break;
      case StepKind::RowDots: row_dots(); break;
      case StepKind::ActivationDots: activation_dots(); break;
      case StepKind::SwigluGrad: swiglu_gradient(); break;
      case StepKind::SoftmaxGrad: softmax_gradient(); break;
      case StepKind::Combine: combined(); break;
      case StepKind::AddRouter: with_router(); break;
      case StepKind::Selection:  // the routing, which is replayed
      case StepKind::Counts:
      case StepKind::Order: break;
    }
    return std::move(out_);
  }

 private:
  /// Rows of any field.
  Matrix operand(Field field, const IndexVector& rows) const {
    switch (field) {  // what the problem gives, each its own member
      case Field::input_hidden_states: return widened(input_.problem->input, rows);
      case Field::gate: return widened(input_.problem->gate, rows);
      case Field::d_hidden_states: return widened(input_.problem->output_gradient, rows);
      default: return input_.read(field, rows);
    }
  }

  static IndexVector range(std::int64_t begin, std::int64_t end) {
    IndexVector all(end - begin);
    std::iota(all.begin(), all.end(), static_cast<std::int32_t>(begin));
    return all;
  }

  /// The flat slots of tokens, one token after the other.
  IndexVector slots_of(const IndexVector& tokens) const {
    const auto top_k = static_cast<std::int32_t>(config_.top_k);
    IndexVector slots(tokens.size() * top_k);
    for (std::int64_t i = 0; i < slots.size(); ++i)
      slots[i] = tokens[i / top_k] * top_k + static_cast<std::int32_t>(i % top_k);
    return slots;
  }

  /// The experts of tokens [tokens, K].
  IndexMatrix selected(const IndexVector& tokens) const {
    const Eigen::Map<const IndexMatrix> all(routing_.selected.data(), input_.problem->sizes().tokens,
                                            config_.top_k);
    return all(tokens, Eigen::all);
  }

  IndexVector slots_of_rows(const IndexVector& rows) const {
    return Eigen::Map<const IndexVector>(routing_.gather.data(), std::ssize(routing_.gather))(rows);
  }

  /// Slots of a field in expert order. What no row is gathered to is zero.
  Matrix slots(Field field, const IndexVector& wanted) const {
    IndexVector row_of_slot = IndexVector::Constant(std::ssize(routing_.gather), -1);
    for (std::size_t r = 0; r < routing_.gather.size(); ++r)
      row_of_slot[routing_.gather[r]] = static_cast<std::int32_t>(r);
    const IndexVector rows = row_of_slot(wanted);
    Matrix values = operand(field, rows.cwiseMax(0));
    for (std::int64_t i = 0; i < rows.size(); ++i)
      if (rows[i] < 0) values.row(i).setZero();
    return values;
  }

  /// Rows of an expert's matrix.
  std::int64_t matrix_rows() const {
    return row(made_).rows == RowsAre::ExpertMatrix ? extent(row(made_).shape[1], input_.problem->sizes())
                                                    : rows_of(made_, input_.problem->sizes());
  }

  /// That of all rows; 0 where there is one matrix.
  std::int64_t expert() const {
    if (row(made_).rows != RowsAre::ExpertOrder) return rows_[0] / matrix_rows();
    return std::ranges::upper_bound(routing_.offsets, std::int64_t{rows_[0]}) - routing_.offsets.begin() - 1;
  }

  void product() {
    const ProductRow& product = row(*product_of(made_));
    if (product.left_lies == Lies::AlongRows) return weight_gradient(product);
    const bool after_product = weight_after_product(contract_) && product.left == Field::d_second_gemm;
    const Field left = after_product ? Field::d_hidden_states : product.left;
    const bool gathered = row(made_).rows == RowsAre::ExpertOrder && row(left).rows == RowsAre::Tokens;
    const Matrix x = operand(left, gathered ? tokens_of_rows(rows_) : rows_);
    const ExpertMatrix weights = per_expert(product) ? input_.problem->experts(product.right, expert())
                                                     : ExpertMatrix{input_.problem->gate.as<Bf16>(), {}};
    const bool transposed = product.right_lies == Lies::AlongRows;
    out_.values = transposed ? times(x, weights.values, width_of(made_, input_.problem->sizes()))
                             : times_transposed(x, weights.values);
    out_.row_slack = slack_of(x.cols()) * x.cwiseAbs().rowwise().sum();
    out_.column_slack = largest_magnitudes(weights.values, x.cols(), transposed);
    if (!after_product) return;
    const Eigen::VectorXd weight = weights_of_rows(rows_);
    out_.values.array().colwise() *= weight.array();
    out_.row_slack.array() *= weight.array().abs();
  }

  IndexVector tokens_of_rows(const IndexVector& rows) const {
    return slots_of_rows(rows) / static_cast<std::int32_t>(config_.top_k);
  }

  void weight_gradient(const ProductRow& product) {
    const bool tokens = product.summed == Dim::T;
    const auto e = static_cast<std::size_t>(expert());
    const IndexVector summed = tokens ? range(0, input_.problem->sizes().tokens)
                                      : range(routing_.offsets[e], routing_.offsets[e + 1]);
    const bool gathered = !tokens && row(product.right).rows == RowsAre::Tokens;
    const bool after_product = weight_after_product(contract_) && product.left == Field::d_second_gemm;
    const IndexVector own = rows_.array() - static_cast<std::int32_t>(expert() * matrix_rows());
    const Matrix left = after_product
                            ? operand(Field::d_hidden_states, tokens_of_rows(summed))(Eigen::all, own)
                            : operand(product.left, summed)(Eigen::all, own);
    const Matrix right = after_product ? weighted_activation(operand(Field::first_gemm, summed),
                                                             weights_of_rows(summed), contract_)
                                       : operand(product.right, gathered ? tokens_of_rows(summed) : summed);
    out_.values = left.transpose() * right;  // zeros where there are no rows
    out_.row_slack = slack_of(summed.size()) * left.cwiseAbs().colwise().sum().transpose();
    out_.column_slack =
        summed.size() == 0 ? RowVector::Zero(right.cols()) : RowVector(right.cwiseAbs().colwise().maxCoeff());
    if (after_product && contract_.intermediate == Store::Bf16) leave_undecided_columns(summed);
    added_to_previous();
  }

  /// Columns with an activation of which float64 cannot tell how it is rounded.
  void leave_undecided_columns(const IndexVector& rows) {
    const Eigen::VectorXd weights = weights_of_rows(rows);
    const Matrix a =
        activation(operand(Field::first_gemm, rows), contract_).array().colwise() * weights.array();
    for (std::int64_t r = 0; r < a.rows(); ++r)
      for (std::int64_t c = 0; c < a.cols(); ++c)
        if (undecided(a(r, c), 32 * kUnitRoundoff * std::fabs(a(r, c)))) out_.column_slack[c] = kUndecided;
  }

  void added_to_previous() {
    const bool added = input_.problem->previous.has(made_);
    if (!added &&
        (contract_.weight_gradients == Store::Bf16 || contract_.weight_products == Store::Unrounded))
      return;
    out_.slack = summed_slack(made_, *input_.problem, contract_, rows_, out_.values,
                              out_.row_slack * out_.column_slack);
    out_.values = summed_gradient(made_, *input_.problem, contract_, rows_, Matrix(out_.values));
  }

  void weights() {
    out_.values = weights_of(operand(Field::router_logits, rows_), selected(rows_), config_.norm_topk_prob,
                             unrounded());
    out_.slack = slack_of(2 * config_.num_experts + 64) * out_.values.cwiseAbs();
    leave_repeated();
  }

  /// A token that chose an expert twice chose wrongly: no weights are right, and none are confirmed.
  void leave_repeated() {
    const IndexMatrix chosen = selected(rows_);
    for (std::int64_t t = 0; t < rows_.size(); ++t)
      for (std::int64_t j = 1; j < chosen.cols(); ++j)
        if ((chosen.row(t).head(j).array() == chosen(t, j)).any()) out_.slack.row(t).setConstant(kUndecided);
  }

  /// The contract with what this step stores left as it is.
  PrecisionContract unrounded() const {
    PrecisionContract contract = contract_;
    contract.weights = contract.intermediate = contract.output = Store::Unrounded;
    contract.gradients = contract.d_logits = Store::Unrounded;
    return contract;
  }

  /// silu before it is rounded, which decides the rest.
  void leave_undecided(const Matrix& gate, Eigen::Ref<Matrix> slack) const {
    if (contract_.silu == Store::Unrounded) return;
    const Matrix silu = gate.cwiseProduct(sigmoid(gate, contract_));
    for (std::int64_t r = 0; r < gate.rows(); ++r)
      for (std::int64_t c = 0; c < gate.cols(); ++c)
        if (undecided(silu(r, c), 8 * kUnitRoundoff * std::fabs(silu(r, c)))) slack(r, c) = kUndecided;
  }

  void swiglu() {
    const Matrix first_gemm = operand(Field::first_gemm, rows_);
    out_.values = act_and_mul(first_gemm, unrounded());
    out_.slack = 16 * kUnitRoundoff * out_.values.cwiseAbs();
    leave_undecided(first_gemm.leftCols(out_.values.cols()), out_.slack);
  }

  void merged() {
    const Matrix rows = operand(Field::hidden_states_unpermute, slots_of(rows_));
    const Matrix weights = operand(Field::topk_weights, rows_);
    out_.values = merge(rows, weights, selected(rows_), unrounded());
    PrecisionContract sizes = unrounded();
    sizes.weighted = Store::Unrounded;
    sizes.combine = Combine::Fp32Sum;
    out_.slack = slack_of(config_.top_k) * merge(rows.cwiseAbs(), weights.cwiseAbs(), selected(rows_), sizes);
  }

  Eigen::VectorXd weights_of_rows(const IndexVector& rows) const {
    const IndexVector slots = slots_of_rows(rows);
    const auto top_k = static_cast<std::int32_t>(config_.top_k);
    const Matrix weights = operand(Field::topk_weights, slots / top_k);
    Eigen::VectorXd of_rows(rows.size());
    for (std::int64_t r = 0; r < rows.size(); ++r) of_rows[r] = weights(r, slots[r] % top_k);
    return of_rows;
  }

  void weighted_rows() {
    out_.values = operand(Field::d_hidden_states, tokens_of_rows(rows_)).array().colwise() *
                  weights_of_rows(rows_).array();
    out_.slack = slack_of(0) * out_.values.cwiseAbs();
  }

  void row_dots() {
    const Matrix gradient = operand(Field::d_hidden_states, rows_);
    const Matrix rows = operand(Field::hidden_states_unpermute, slots_of(rows_));
    out_.values = d_weights(gradient, rows, unrounded());
    out_.slack = slack_of(config_.hidden_size) * d_weights(gradient.cwiseAbs(), rows.cwiseAbs(), unrounded());
  }

  /// `d_intermediate` is seen as the product without the weight.
  void activation_dots() {
    const IndexVector wanted = slots_of(rows_);
    const Matrix products = slots(Field::d_intermediate, wanted);
    const Matrix a = activation(slots(Field::first_gemm, wanted), contract_);
    const Matrix terms = products.cwiseProduct(a);
    const Eigen::VectorXd sums = terms.rowwise().sum();
    const Eigen::VectorXd sizes = terms.cwiseAbs().rowwise().sum();
    out_.values = sums.reshaped<Eigen::RowMajor>(rows_.size(), config_.top_k);
    out_.slack = slack_of(a.cols() + 16) * sizes.reshaped<Eigen::RowMajor>(rows_.size(), config_.top_k);
  }

  void swiglu_gradient() {
    const Matrix first_gemm = operand(Field::first_gemm, rows_);
    Matrix d_hidden = operand(Field::d_intermediate, rows_);
    if (weight_after_product(contract_)) d_hidden.array().colwise() *= weights_of_rows(rows_).array();
    const std::int64_t width = d_hidden.cols();
    out_.values = d_act_and_mul(first_gemm, d_hidden, unrounded());
    // Of the slope 1 + a (1 - s), which crosses zero, every term's own size counts.
    const Matrix gate = first_gemm.leftCols(width);
    const Matrix size = d_hidden.cwiseProduct(first_gemm.rightCols(width)).cwiseAbs();
    out_.slack.resizeLike(out_.values);
    out_.slack.leftCols(width) = 16 * kUnitRoundoff * size.array() * (1.0 + gate.array().abs());
    out_.slack.rightCols(width) = 16 * kUnitRoundoff * out_.values.rightCols(width).cwiseAbs();
    leave_undecided(gate, out_.slack.rightCols(width));
  }

  void softmax_gradient() {
    const Matrix logits = operand(Field::router_logits, rows_);
    const Matrix given = operand(Field::d_topk_weights, rows_);
    const IndexMatrix chosen = selected(rows_);
    out_.values = d_logits(logits, chosen, given, config_.norm_topk_prob, unrounded());
    const Matrix probabilities = softmax(logits);
    out_.slack.resizeLike(out_.values);
    for (std::int64_t t = 0; t < rows_.size(); ++t) {
      const RowVector p = probabilities.row(t);
      const RowVector v = p(chosen.row(t));
      const RowVector g = given.row(t).cwiseAbs();
      const double sum = config_.norm_topk_prob ? v.sum() : 1.0;
      // g / sum + <g, v> / sum^2 of a chosen one, and <that, v> of all.
      const double common = g.dot(v) / (sum * sum);
      const double most = g.maxCoeff() / sum + common;
      out_.slack.row(t) = slack_of(4 * config_.num_experts + 64) * most * (1.0 + v.sum()) * p;
    }
    leave_repeated();
  }

  void combined() {
    const Matrix rows = slots(Field::d_permuted_hidden_states, slots_of(rows_));
    out_.values = d_experts(rows, selected(rows_), unrounded());
    PrecisionContract exact = unrounded();
    exact.d_input_combine = Combine::Fp32Sum;
    out_.slack = slack_of(config_.top_k) * d_experts(rows.cwiseAbs(), selected(rows_), exact);
  }

  void with_router() {
    const Matrix d_router_logits = operand(Field::d_router_logits, rows_);
    const Matrix gate = widened(input_.problem->gate);
    const Matrix router = d_router_logits * gate;
    const Matrix slack = slack_of(gate.rows()) * d_router_logits.cwiseAbs().rowwise().sum() *
                         gate.cwiseAbs().colwise().maxCoeff();
    out_.values = operand(Field::d_experts_hidden_states, rows_) + rounded(router, contract_.gradients);
    out_.slack = slack_of(0) * out_.values.cwiseAbs();
    for (std::int64_t t = 0; t < rows_.size(); ++t)
      for (std::int64_t h = 0; h < router.cols(); ++h) {
        if (contract_.gradients == Store::Unrounded)
          out_.slack(t, h) += slack(t, h);
        else if (undecided(router(t, h), slack(t, h)))
          out_.slack(t, h) = kUndecided;
      }
  }

  Field made_;
  const StepInput& input_;
  const MoeConfig& config_;
  const PrecisionContract& contract_;
  const Routing& routing_;
  const IndexVector& rows_;
  StepRows out_;
};

}  // namespace

StepRows plain_step(Field made, const StepInput& input, const IndexVector& rows) {
  return Step(made, input, rows).run();
}

}  // namespace assay::plain
