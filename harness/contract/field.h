// The field table: one row per tensor of the layer. HDF5 paths, shape checks, comparison order and report
// text come from it.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "harness/contract/config.h"
#include "harness/contract/tensor.h"

namespace assay {

enum class Stage {
  Input,
  Weight,
  Router,
  TopK,
  Permute,
  GateUp,
  Swiglu,
  Down,
  Unpermute,
  Merge,
  MergeGrad,
  DownGrad,
  SwigluGrad,
  GateUpGrad,
  RouterGrad,
  InputGrad,
};

enum class Field {
  input_hidden_states,
  d_hidden_states,
  gate,
  gate_up_proj,
  down_proj,
  router_logits,
  selected_experts,
  topk_weights,
  token_counts_by_expert,
  gather_indices,
  first_gemm,
  intermediate,
  second_gemm,
  hidden_states_unpermute,
  hidden_states,
  d_second_gemm,
  d_topk_weights,
  d_intermediate,
  d_down_proj,
  d_first_gemm,
  d_permuted_hidden_states,
  d_gate_up_proj,
  d_router_logits,
  d_gate,
  d_experts_hidden_states,
  d_input_hidden_states,
};
inline constexpr std::size_t kFieldCount = static_cast<std::size_t>(Field::d_input_hidden_states) + 1;

/// One flag per field.
using FieldFlags = std::array<bool, kFieldCount>;

/// Symbolic extent of an axis.
enum class Dim { None, T, H, E, K, S, I, TwoI };

/// What the rows of a field are; its columns are the last axis, whatever the rank.
enum class RowsAre {
  Tokens,
  ExpertOrder,  // token slots sorted by expert: row r is the flat slot gather_indices[r]
  Slots,        // flat slots t * K + j
  Experts,
  ExpertMatrix,  // the rows of expert 0's matrix, then of expert 1's, ...
};

enum class Group { Inputs, Weights, Forward, Backward };
enum class Match { Given, Exact, Rounded, Selection };

struct FieldRow {
  Field id;
  std::string_view name;  // Unsloth's name, and the dataset's
  Stage stage;
  Group group;
  std::array<Dim, 3> shape;  // trailing None = lower rank
  RowsAre rows;
  DType dtype;
  Match match;
  Dim reduced;             // axis the stage's product sums over
  std::string_view alias;  // what HuggingFace calls it, or where it is formed
};

// clang-format off
inline constexpr std::array<FieldRow, kFieldCount> kFields = {{
  {Field::input_hidden_states,      "input_hidden_states",      Stage::Input,      Group::Inputs,   {Dim::T, Dim::H},            RowsAre::Tokens,       DType::BFloat16, Match::Given,     Dim::None, "hidden_states (input)"},
  {Field::d_hidden_states,          "d_hidden_states",          Stage::Input,      Group::Inputs,   {Dim::T, Dim::H},            RowsAre::Tokens,       DType::BFloat16, Match::Given,     Dim::None, "grad of hidden_states"},
  {Field::gate,                     "gate",                     Stage::Weight,     Group::Weights,  {Dim::E, Dim::H},            RowsAre::Experts,      DType::BFloat16, Match::Given,     Dim::None, "gate.weight"},
  {Field::gate_up_proj,             "gate_up_proj",             Stage::Weight,     Group::Weights,  {Dim::E, Dim::TwoI, Dim::H}, RowsAre::ExpertMatrix, DType::BFloat16, Match::Given,     Dim::None, "experts.gate_up_proj"},
  {Field::down_proj,                "down_proj",                Stage::Weight,     Group::Weights,  {Dim::E, Dim::H, Dim::I},    RowsAre::ExpertMatrix, DType::BFloat16, Match::Given,     Dim::None, "experts.down_proj"},
  {Field::router_logits,            "router_logits",            Stage::Router,     Group::Forward,  {Dim::T, Dim::E},            RowsAre::Tokens,       DType::BFloat16, Match::Rounded,   Dim::H,    "gate output 0"},
  {Field::selected_experts,         "selected_experts",         Stage::TopK,       Group::Forward,  {Dim::T, Dim::K},            RowsAre::Tokens,       DType::Int32,    Match::Selection, Dim::E,    "gate output 2 (router_indices)"},
  {Field::topk_weights,             "topk_weights",             Stage::TopK,       Group::Forward,  {Dim::T, Dim::K},            RowsAre::Tokens,       DType::BFloat16, Match::Rounded,   Dim::K,    "gate output 1 (router_scores)"},
  {Field::token_counts_by_expert,   "token_counts_by_expert",   Stage::Permute,    Group::Forward,  {Dim::E},                    RowsAre::Experts,      DType::Int32,    Match::Exact,     Dim::None, "tokens_per_expert"},
  {Field::gather_indices,           "gather_indices",           Stage::Permute,    Group::Forward,  {Dim::S},                    RowsAre::ExpertOrder,  DType::Int32,    Match::Exact,     Dim::None, "stable argsort of selected_experts"},
  {Field::first_gemm,               "first_gemm",               Stage::GateUp,     Group::Forward,  {Dim::S, Dim::TwoI},         RowsAre::ExpertOrder,  DType::BFloat16, Match::Rounded,   Dim::H,    "gate_up output"},
  {Field::intermediate,             "intermediate",             Stage::Swiglu,     Group::Forward,  {Dim::S, Dim::I},            RowsAre::ExpertOrder,  DType::BFloat16, Match::Rounded,   Dim::None, "act_fn(gate) * up"},
  {Field::second_gemm,              "second_gemm",              Stage::Down,       Group::Forward,  {Dim::S, Dim::H},            RowsAre::ExpertOrder,  DType::BFloat16, Match::Rounded,   Dim::I,    "down output"},
  {Field::hidden_states_unpermute,  "hidden_states_unpermute",  Stage::Unpermute,  Group::Forward,  {Dim::S, Dim::H},            RowsAre::Slots,        DType::BFloat16, Match::Exact,     Dim::None, "down output in slot order"},
  {Field::hidden_states,            "hidden_states",            Stage::Merge,      Group::Forward,  {Dim::T, Dim::H},            RowsAre::Tokens,       DType::BFloat16, Match::Rounded,   Dim::K,    "block output"},
  {Field::d_second_gemm,            "d_second_gemm",            Stage::MergeGrad,  Group::Backward, {Dim::S, Dim::H},            RowsAre::ExpertOrder,  DType::BFloat16, Match::Rounded,   Dim::None, "grad of down output"},
  {Field::d_topk_weights,           "d_topk_weights",           Stage::MergeGrad,  Group::Backward, {Dim::T, Dim::K},            RowsAre::Tokens,       DType::BFloat16, Match::Rounded,   Dim::H,    "grad of router_scores"},
  {Field::d_intermediate,           "d_intermediate",           Stage::DownGrad,   Group::Backward, {Dim::S, Dim::I},            RowsAre::ExpertOrder,  DType::BFloat16, Match::Rounded,   Dim::H,    "grad of act_fn(gate) * up"},
  {Field::d_down_proj,              "d_down_proj",              Stage::DownGrad,   Group::Backward, {Dim::E, Dim::H, Dim::I},    RowsAre::ExpertMatrix, DType::BFloat16, Match::Rounded,   Dim::S,    "experts.down_proj.grad"},
  {Field::d_first_gemm,             "d_first_gemm",             Stage::SwigluGrad, Group::Backward, {Dim::S, Dim::TwoI},         RowsAre::ExpertOrder,  DType::BFloat16, Match::Rounded,   Dim::None, "grad of gate_up output"},
  {Field::d_permuted_hidden_states, "d_permuted_hidden_states", Stage::GateUpGrad, Group::Backward, {Dim::S, Dim::H},            RowsAre::ExpertOrder,  DType::BFloat16, Match::Rounded,   Dim::TwoI, "grad of the permuted rows"},
  {Field::d_gate_up_proj,           "d_gate_up_proj",           Stage::GateUpGrad, Group::Backward, {Dim::E, Dim::TwoI, Dim::H}, RowsAre::ExpertMatrix, DType::BFloat16, Match::Rounded,   Dim::S,    "experts.gate_up_proj.grad"},
  {Field::d_router_logits,          "d_router_logits",          Stage::RouterGrad, Group::Backward, {Dim::T, Dim::E},            RowsAre::Tokens,       DType::BFloat16, Match::Rounded,   Dim::K,    "grad of router_logits"},
  {Field::d_gate,                   "d_gate",                   Stage::RouterGrad, Group::Backward, {Dim::E, Dim::H},            RowsAre::Experts,      DType::BFloat16, Match::Rounded,   Dim::T,    "gate.weight.grad"},
  {Field::d_experts_hidden_states,  "d_experts_hidden_states",  Stage::InputGrad,  Group::Backward, {Dim::T, Dim::H},            RowsAre::Tokens,       DType::BFloat16, Match::Rounded,   Dim::K,    "grad of the experts' input"},
  {Field::d_input_hidden_states,    "d_input_hidden_states",    Stage::InputGrad,  Group::Backward, {Dim::T, Dim::H},            RowsAre::Tokens,       DType::BFloat16, Match::Rounded,   Dim::K,    "hidden_states.grad"},
}};
// clang-format on

constexpr bool fields_are_in_order() {
  for (std::size_t i = 0; i < kFieldCount; ++i)
    if (kFields[i].id != static_cast<Field>(i)) return false;
  return true;
}
static_assert(fields_are_in_order(), "row i of the field table must describe Field i");

constexpr const FieldRow& row(Field field) { return kFields[static_cast<std::size_t>(field)]; }
constexpr std::string_view name(Field field) { return row(field).name; }

std::string_view name(Stage stage);
std::string_view name(Group group);  // the HDF5 group: "inputs", "weights", "forward", "backward"
std::string_view name(Match match);
std::string_view symbol(Dim dim);  // "T", "2I"
/// "token", "expert", "slot", "row", "col": of axis `axis` of a field. Two axes of one field never share a
/// name.
std::string_view axis_name(Field field, std::size_t axis);

std::optional<Field> find_field(std::string_view name);
std::optional<Stage> find_stage(std::string_view name);

/// Extent of a symbolic axis in a problem of these sizes.
std::int64_t extent(Dim dim, const Sizes& sizes);

/// The shape a field must have.
Shape expected_shape(Field field, const Sizes& sizes);

constexpr std::size_t rank_of(Field field) {
  std::size_t rank = 0;
  while (rank < row(field).shape.size() && row(field).shape[rank] != Dim::None) ++rank;
  return rank;
}

/// All rows, of all experts where they are an expert's.
std::int64_t rows_of(Field field, const Sizes& sizes);

/// Columns: the last axis; 1 for a field of rank 1.
std::int64_t width_of(Field field, const Sizes& sizes);

/// Rows [begin, end) of a field.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t count() const { return end - begin; }
  friend bool operator==(const RowRange&, const RowRange&) = default;
};

/// Every row of a field: what is asked for where it is taken whole.
RowRange all_rows(Field field, const Sizes& sizes);

/// Rows of one expert's matrix, for fields of RowsAre::ExpertMatrix: row r of the field is expert r / this's.
std::int64_t matrix_rows_of(Field field, const Sizes& sizes);

/// Elements of a field that are held as intervals at a time, unless one expert's matrix has more.
inline constexpr std::int64_t kBlockElements = std::int64_t{1} << 22;

/// How a field is judged: in one block, or where its rows are experts' matrices in blocks of whole matrices.
/// Never empty.
std::vector<RowRange> blocks_of(Field field, const Sizes& sizes);

}  // namespace assay
