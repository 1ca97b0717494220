// One planted fault, and what the judge and the rules of thumb said of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fixtures/faults.h"
#include "harness/cli/mutate/other_sums.h"
#include "harness/cli/mutate/right_answers.h"
#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"
#include "harness/contract/report.h"

namespace assay::cli {

/// A problem with its right answers, made once for many faults.
struct Ground {
  Problem problem;
  std::string contract;
  bool backward = false;           // candidates hold both passes
  SumsOf sums = SumsOf::Recorded;  // of candidates' products
  Candidate right;                 // the predicted run without a fault
  RightAnswers answers;            // what rules of thumb compare with
};

/// Whether a fault strikes the backward pass, and needs both.
bool strikes_backward(const Fault& fault);

/// The fixture's problem, `seed` and the number of tokens replaced unless they are 0, spoilt as the fault
/// needs it.
Ground make_ground(std::string_view fixture, std::string_view contract, Spoil spoilt = Spoil::Nothing,
                   std::uint64_t seed = 0, std::int64_t tokens = 0, bool backward = false,
                   SumsOf sums = SumsOf::Recorded);

/// What found an error, each by itself.
struct Detectors {
  bool isolated = false;    // outside the interval computed from the candidate's own upstream fields
  bool chained = false;     // outside the interval carried on from the inputs
  bool bits = false;        // not the predicted bits of the declared accumulators
  bool statistics = false;  // beyond what legal implementations show, inside the interval or not
  bool integers = false;    // counts or indices
  bool selection = false;   // the router's choice
};

/// One way of judging the planted candidate.
struct Sentence {
  Verdict verdict = Verdict::NotMaterialised;
  bool killed = false;  // Suspect or worse
  bool right_stage =
      false;  // the first stage with an error of its own is the planted one, and nothing before it is red
  Detectors by;
  std::string headline;
};

enum class Outcome { Killed, Survived, WrongStage, Equivalent, Unreached };
std::string_view name(Outcome outcome);

struct Mutation {
  std::string_view fault;
  std::string fixture;
  std::string contract;
  SumsOf sums = SumsOf::Recorded;
  // As a Hopper candidate that declares its accumulators; of one that sums in float64, nothing declared.
  Outcome outcome = Outcome::Survived;
  Field expected{};   // the stage that must show it: the planted one, or the first materialised after it
  Sentence declared;  // accumulators declared: predicted bits are binding
  Sentence open;      // nothing declared, no GPU named: intervals and statistics alone
  std::string hint_expected;  // "a|b", empty where no hint is expected
  // The best cause named for the expected field; of other sums than the recorded ones with nothing declared.
  std::string hint;
  bool hint_right = false;
  std::vector<std::string_view> missed_by;  // rules of thumb that accept the output (rivals.h)
};

/// Computes the faulty candidate in predicted arithmetic.
Candidate faulty_candidate(const Fault& fault, const Ground& ground);

/// Judges a candidate both ways, as `Sentence`s about a fault in `expected`; causes are looked for if `whole`
/// is asked for.
Sentence judge_declared(const Ground& ground, const Candidate& candidate, Field expected,
                        CaseResult* whole = nullptr);
Sentence judge_open(const Ground& ground, const Candidate& candidate, Field expected,
                    CaseResult* whole = nullptr);

/// Whether two candidates hold the same bits in every field.
bool same_bits(const Candidate& a, const Candidate& b);

Mutation plant(const FaultRow& fault, const Ground& ground, std::string_view fixture);

}  // namespace assay::cli
