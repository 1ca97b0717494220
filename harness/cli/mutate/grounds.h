// Grounds that many faults are planted on.
#pragma once

#include <map>
#include <string>
#include <tuple>

#include "harness/cli/mutate/mutation.h"

namespace assay::cli {

/// Makes each ground once, under the contract `hf`, and keeps it.
class Grounds {
 public:
  const Ground& of(const FaultRow& fault, std::string_view fixture) {
    const bool backward = strikes_backward(fault.fault);
    const auto [at, is_new] = made_.try_emplace({std::string(fixture), fault.spoil, backward});
    if (is_new) at->second = make_ground(fixture, "hf", fault.spoil, 0, 0, backward);
    return at->second;
  }

 private:
  std::map<std::tuple<std::string, Spoil, bool>, Ground> made_;
};

}  // namespace assay::cli
