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

/// Consecutive seeds.
struct SeedRange {
  std::uint64_t first = 0;
  std::int64_t count = 0;
};

struct FalseAlarms {
  std::vector<SeedRange> seeds;  // ascending, none met by another
  std::vector<std::string> fixtures;
  std::vector<std::string> orders;
  std::vector<std::string> contracts;
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

/// Problems with fresh seeds, the fixture kinds in turn by seed, in every legal order of summation and
/// contract. `first_seed` > 0. `planted` makes the runs wrong (the random order excepted), to see that this
/// very count can fail.
FalseAlarms judge_correct_runs(std::int64_t seeds, std::uint64_t first_seed, const Fault& planted = {});

/// Adds the counts and alarms of another's runs.
void add(FalseAlarms& all, const FalseAlarms& part);

/// 0 without an alarm, 1 with one, 77 when nothing was judged.
ExitCode exit_code(const FalseAlarms& result);

std::string text(const FalseAlarms& result);
std::string json(const FalseAlarms& result, const std::string& command);
/// Reads what `json` writes; of alarms beyond those it shows, that there were some. Throws InputError naming
/// what is missing.
FalseAlarms read_false_alarms(const std::string& text);

/// How many seeds there are in all.
std::int64_t seed_count(const FalseAlarms& result);

/// Runs over different seeds as one, `seconds` their sum. Throws InputError where they share a seed, or
/// differ in fixtures, orders or contracts.
FalseAlarms merge_false_alarms(std::vector<FalseAlarms> parts);

}  // namespace assay::cli
