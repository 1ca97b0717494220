// Correct runs, judged: how often the judge and the rules of thumb call a right answer wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/exit_code.h"
#include "harness/contract/fault.h"
#include "harness/contract/verdict.h"

namespace assay::cli {

/// A correct run that did not pass.
struct Alarm {
  std::string fixture;
  std::string order;
  std::string contract;
  std::uint64_t seed = 0;
  bool declared = false;  // accumulators declared
  Verdict verdict = Verdict::Passed;
  std::string headline;
};

struct FalseAlarms {
  std::int64_t seeds = 0;
  std::vector<std::string_view> fixtures;
  std::vector<std::string_view> orders;
  std::vector<std::string_view> contracts;
  std::int64_t runs = 0;        // layers computed: seeds x orders x contracts
  std::int64_t judgements = 0;  // each run declared and undeclared
  std::int64_t elements = 0;    // compared, isolated and chained
  std::int64_t unjudged = 0;    // judgements that compared nothing: must be 0
  std::vector<Alarm> alarms;
  struct RivalFails {
    std::string_view rival;
    std::int64_t runs = 0;
  };
  std::vector<RivalFails> rivals;  // correct runs that each rule of thumb rejects
  double seconds = 0.0;
};

/// Problems with fresh seeds, the fixture kinds in turn, in every legal order of summation and contract.
/// `first_seed` > 0. `planted` makes the runs wrong (the random order excepted), to see that this very count
/// can fail.
FalseAlarms judge_correct_runs(std::int64_t seeds, std::uint64_t first_seed, const Fault& planted = {});

/// 0 without an alarm, 1 with one, 77 when nothing was judged.
ExitCode exit_code(const FalseAlarms& result);

std::string text(const FalseAlarms& result);
std::string json(const FalseAlarms& result, const std::string& command);
/// Reads the counts that `json` writes (of the alarms, how many). Throws InputError naming what is missing.
FalseAlarms read_false_alarms(const std::string& text);

}  // namespace assay::cli
