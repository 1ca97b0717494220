#include "harness/judge/shrink.h"

#include <algorithm>

#include <doctest/doctest.h>

using namespace assay;

namespace {

Part everything(std::int64_t tokens, std::int64_t experts, std::int64_t hidden, std::int64_t intermediate) {
  Sizes sizes{{hidden, intermediate, experts, 2, true}, tokens};
  return whole(sizes);
}

bool has(const std::vector<std::int64_t>& list, std::int64_t value) {
  return std::ranges::find(list, value) != list.end();
}

Shrink until(std::function<bool(const Part&)> fails) {
  return {std::move(fails), [](const Part& part) { return part.experts; }, nullptr};
}

using Indices = std::vector<std::int64_t>;

}  // namespace

TEST_SUITE("shrink") {
  TEST_CASE("only what the failure needs is left") {
    const auto part = shrink(everything(100, 32, 64, 48), {2, 1}, until([](const Part& p) {
                               return has(p.tokens, 7) && has(p.tokens, 71) && has(p.experts, 30) &&
                                      p.hidden.begin <= 20 && p.hidden.begin + p.hidden.count > 33;
                             }));
    CHECK(part.tokens == Indices{7, 71});
    CHECK(part.experts.size() == 2);
    CHECK(has(part.experts, 30));
    CHECK(part.hidden == Stretch{20, 14});
    CHECK(part.intermediate.count == 1);
  }

  TEST_CASE("what needs a long K keeps it, in the steps allowed") {
    const auto part =
        shrink(everything(5, 8, 512, 256), {2, 8},
               until([](const Part& p) { return p.hidden.count >= 300 && p.intermediate.count > 40; }));
    CHECK(part.tokens.size() == 1);
    CHECK(part.hidden.count == 304);
    CHECK(part.intermediate.count == 48);
  }

  TEST_CASE("a failure of everything stays whole, and one of anything becomes one token") {
    const auto start = everything(9, 4, 16, 8);
    CHECK(shrink(start, {2, 1}, until([&](const Part& p) { return p == start; })) == start);
    const auto least = shrink(start, {2, 1}, until([](const Part&) { return true; }));
    CHECK(least.tokens.size() == 1);
    CHECK(least.experts.size() == 2);
    CHECK(least.hidden.count == 1);
    const auto columns_stay = shrink(start, {2, 0}, until([](const Part&) { return true; }));
    CHECK(columns_stay.hidden.count == 16);
  }

  TEST_CASE("unused experts go first, all at once") {
    std::vector<std::size_t> sizes;
    Shrink watched = until([&](const Part& p) { return has(p.experts, 5); });
    watched.used_experts = [](const Part&) { return Indices{2, 5}; };
    watched.progress = [&](const Part& p, std::string_view what) {
      if (what == "experts") sizes.push_back(p.experts.size());
    };
    CHECK(shrink(everything(1, 64, 4, 4), {2, 0}, watched).experts == Indices{2, 5});
    CHECK(sizes == std::vector<std::size_t>{2});
  }
}
