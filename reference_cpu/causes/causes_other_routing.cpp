// A backward pass that follows another routing than forward: the rows of d_second_gemm are weights times rows
// of d_hidden_states, so their directions tell which token stands where, and rows ascend within an expert.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

constexpr double kParallel = 1e-3;  // squared sine of two rows that bf16 keeps apart, and more
constexpr double kMostWork = 1e9;   // multiply-adds of the search for tokens
constexpr std::int64_t kMostStates = std::int64_t{1} << 22;  // rows times experts
constexpr std::size_t kShownTokens = 2;

struct FoundRow {
  std::int64_t token = -1;
  double weight = 0.0;
};

class OtherRouting {
 public:
  explicit OtherRouting(const Evidence& evidence)
      : evidence_(evidence), layer_(*evidence.layer), top_k_(layer_.config().top_k) {}

  std::vector<Proposal> proposals() {
    const std::int64_t rows = evidence_.rows;
    const std::int64_t experts = layer_.config().num_experts;
    if (experts < 2 || rows == 0 || rows * (experts + 1) > kMostStates || !find_tokens()) return {};
    std::vector<std::int64_t> expert_of(static_cast<std::size_t>(rows));
    if (!assign(expert_of)) return {};
    std::map<std::int64_t, std::pair<std::set<std::int64_t>, std::set<std::int64_t>>> changed;  // runs, chose
    for (std::int64_t r = 0; r < rows; ++r)
      if (!chose(at(r).token, expert_of[static_cast<std::size_t>(r)]))
        changed[at(r).token].first.insert(expert_of[static_cast<std::size_t>(r)]);
    if (changed.empty() || 2 * std::ssize(changed) > layer_.tokens()) return {};
    for (auto& [token, experts_of] : changed) {
      std::set<std::int64_t> run;
      for (std::int64_t r = 0; r < rows; ++r)
        if (at(r).token == token) run.insert(expert_of[static_cast<std::size_t>(r)]);
      for (std::int64_t j = 0; j < top_k_; ++j)
        if (!run.contains(selected(token, j))) experts_of.second.insert(selected(token, j));
    }
    std::vector<std::string> words;
    for (const auto& [token, of] : changed)
      if (words.size() < kShownTokens)
        words.push_back(fmt::format("token {} runs expert{} {}, not {}", token,
                                    of.first.size() == 1 ? "" : "s", fmt::join(of.first, ", "),
                                    fmt::join(of.second, ", ")));
    const auto more = changed.size() - words.size();
    auto sentence = fmt::format("backward follows another routing than forward: {}{}", fmt::join(words, "; "),
                                more > 0 ? fmt::format("; {} more tokens", more) : "");
    const auto d_output = layer_.problem->output_gradient.as<Bf16>();
    return {{"other_routing", std::move(sentence),
             by_element([&evidence = evidence_, found = found_, d_output](std::int64_t r, std::int64_t c) {
               const FoundRow& row = found[static_cast<std::size_t>(r)];
               const double x = to_float(d_output[static_cast<std::size_t>(row.token * evidence.width + c)]);
               return evidence.stored(row.weight * x);
             }),
             true}};
  }

 private:
  const FoundRow& at(std::int64_t r) const { return found_[static_cast<std::size_t>(r)]; }
  std::int64_t selected(std::int64_t token, std::int64_t slot) const {
    return layer_.routing.selected[static_cast<std::size_t>(token * top_k_ + slot)];
  }
  bool chose(std::int64_t token, std::int64_t expert) const {
    for (std::int64_t j = 0; j < top_k_; ++j)
      if (selected(token, j) == expert) return true;
    return false;
  }

  /// The token of every row, its own first; false where one is no token's, or a token has not top_k rows.
  bool find_tokens() {
    const auto d_output = layer_.problem->output_gradient.as<Bf16>();
    const std::int64_t tokens = layer_.tokens();
    const std::int64_t width = evidence_.width;
    if (d_output.empty()) return false;
    std::vector<std::int64_t> rows_of_token(static_cast<std::size_t>(tokens));
    double work = 0.0;
    bool other = false;
    for (std::int64_t r = 0; r < evidence_.rows; ++r) {
      const std::int64_t own = layer_.routing.gather[static_cast<std::size_t>(r)] / top_k_;
      FoundRow found;
      for (std::int64_t i = 0; i < tokens && found.token < 0; ++i) {
        const std::int64_t t = (own + i) % tokens;
        work += static_cast<double>(width);
        double cross = 0.0;
        double left = 0.0;
        double right = 0.0;
        for (std::int64_t c = 0; c < width; ++c) {
          const double out = to_float(evidence_.out[index(evidence_, r, c)]);
          const double x = to_float(d_output[static_cast<std::size_t>(t * width + c)]);
          cross += out * x;
          left += out * out;
          right += x * x;
        }
        if (cross > 0.0 && cross * cross >= (1.0 - kParallel) * left * right) found = {t, cross / right};
      }
      if (found.token < 0 || work > kMostWork) return false;
      other = other || found.token != own;
      if (++rows_of_token[static_cast<std::size_t>(found.token)] > top_k_) return false;
      // Where the routing gives the weight as stored, no fit is needed.
      for (std::int64_t j = 0; j < top_k_; ++j) {
        const double weight =
            evidence_.input(Field::topk_weights)[static_cast<std::size_t>(found.token * top_k_ + j)].value;
        if (std::fabs(weight - found.weight) < 0x1p-9 * weight) found.weight = weight;
      }
      found_.push_back(found);
    }
    return other;
  }

  /// Experts for all rows in expert order, in each of which tokens ascend: those with the fewest rows whose
  /// token did not choose them. False where tokens ascend in no such way.
  bool assign(std::vector<std::int64_t>& expert_of) const {
    const std::int64_t rows = evidence_.rows;
    const std::int64_t experts = layer_.config().num_experts;
    constexpr std::int64_t kNever = std::int64_t{1} << 40;
    const auto state = [experts](std::int64_t r, std::int64_t e) {
      return static_cast<std::size_t>(r * experts + e);
    };
    std::vector<std::int64_t> cost(state(rows, 0), kNever);
    std::vector<std::int64_t> from(cost.size(), -1);  // the expert of the row before
    for (std::int64_t r = 0; r < rows; ++r) {
      std::int64_t best_before = r == 0 ? 0 : kNever;  // among lower experts
      std::int64_t best_expert = -1;
      for (std::int64_t e = 0; e < experts; ++e) {
        std::int64_t least = best_before;
        std::int64_t before = best_expert;
        const bool ascends = r > 0 && at(r - 1).token < at(r).token;
        if (ascends && cost[state(r - 1, e)] <= least) least = cost[state(r - 1, e)], before = e;
        cost[state(r, e)] = std::min(kNever, least + !chose(at(r).token, e));
        from[state(r, e)] = before;
        if (r > 0 && cost[state(r - 1, e)] < best_before)
          best_before = cost[state(r - 1, e)], best_expert = e;
      }
    }
    std::int64_t expert = 0;
    for (std::int64_t e = 1; e < experts; ++e)
      if (cost[state(rows - 1, e)] < cost[state(rows - 1, expert)]) expert = e;
    if (cost[state(rows - 1, expert)] >= kNever) return false;
    for (std::int64_t r = rows; r-- > 0;) {
      expert_of[static_cast<std::size_t>(r)] = expert;
      expert = from[state(r, expert)];
    }
    return true;
  }

  const Evidence& evidence_;
  const Layer& layer_;
  std::int64_t top_k_;
  std::vector<FoundRow> found_;
};

}  // namespace

std::vector<Proposal> propose_other_routing(const Evidence& evidence, const ErrorPlace&) {
  return OtherRouting(evidence).proposals();
}

}  // namespace assay
