#include "harness/judge/index_causes.h"

#include <algorithm>
#include <numeric>

#include <doctest/doctest.h>

using namespace assay;

namespace {

/// Six tokens with two of five experts each; expert 4 has no rows.
constexpr std::int32_t kSelected[] = {1, 0, 3, 1, 1, 2, 0, 3, 2, 1, 3, 0};

Routing right_routing() {
  Routing routing;
  routing.selected.assign(std::begin(kSelected), std::end(kSelected));
  routing.gather.resize(routing.selected.size());
  std::iota(routing.gather.begin(), routing.gather.end(), 0);
  std::ranges::stable_sort(routing.gather, {},
                           [&](std::int32_t s) { return routing.selected[static_cast<std::size_t>(s)]; });
  routing.counts.assign(5, 0);
  for (const auto e : routing.selected) ++routing.counts[static_cast<std::size_t>(e)];
  routing.offsets.assign(1, 0);
  for (const auto count : routing.counts) routing.offsets.push_back(routing.offsets.back() + count);
  return routing;
}

struct Said {
  std::string sentence;
  bool every_bit;
};

/// The first cause of entries made from the right ones.
template <class Change>
Said said_of(Field field, Change change) {
  const Routing right = right_routing();
  const Sizes sizes{{8, 4, 5, 2, true}, 6};
  std::vector<std::int32_t> found = field == Field::gather_indices ? right.gather : right.counts;
  change(found, right);
  const auto causes = causes_of_indices(field, sizes, right, found);
  if (causes.empty()) return {"", false};
  return {causes.front().sentence, causes.front().every_bit};
}

template <class Change>
std::string gather_said(Change change) {
  const Said said = said_of(Field::gather_indices, change);
  CHECK(said.every_bit == !said.sentence.empty());
  return said.sentence;
}
template <class Change>
std::string counts_said(Change change) {
  const Said said = said_of(Field::token_counts_by_expert, change);
  CHECK(said.every_bit == !said.sentence.empty());
  return said.sentence;
}

using Found = std::vector<std::int32_t>;

}  // namespace

TEST_SUITE("index_causes") {
  TEST_CASE("nothing is said of what is right") {
    CHECK(gather_said([](Found&, const Routing&) {}) == "");
    CHECK(counts_said([](Found&, const Routing&) {}) == "");
  }

  TEST_CASE("a convention of another program for the rows' slots is named") {
    CHECK(gather_said([](Found& f, const Routing& right) {
            for (std::size_t r = 0; r < f.size(); ++r)
              f[static_cast<std::size_t>(right.gather[r])] = static_cast<std::int32_t>(r);
          }) == "the inverse permutation: every slot's row, not every row's slot");
    CHECK(gather_said([](Found& f, const Routing&) {
            for (auto& slot : f) slot /= 2;
          }) == "token numbers stand for slots");
    CHECK(gather_said([](Found& f, const Routing&) {
            for (auto& slot : f) slot = slot % 2 * 6 + slot / 2;
          }) == "slots are counted j T + t, not t K + j");
    CHECK(gather_said([](Found& f, const Routing&) { std::iota(f.begin(), f.end(), 0); }) ==
          "slots stand in slot order, not sorted by expert");
    CHECK(gather_said([](Found& f, const Routing&) {
            for (auto& slot : f) ++slot;
          }) == "slots are counted from 1");
    CHECK(gather_said([](Found& f, const Routing&) { std::ranges::rotate(f, f.begin() + 1); }) ==
          "every row has the next row's slot");
    CHECK(gather_said([](Found& f, const Routing& right) {
            std::ranges::stable_sort(f, {}, [&](std::int32_t s) {
              return std::tuple(right.selected[static_cast<std::size_t>(s)], s % 2, s / 2);
            });
          }) == "each expert's slots are sorted by choice before token");
    CHECK(gather_said([](Found& f, const Routing&) { std::ranges::fill(f, 0); }) == "every entry is 0");
  }

  TEST_CASE("a broken permutation is described: which slot twice, which never") {
    CHECK(gather_said([](Found& f, const Routing&) { f[3] = f[7]; }) ==
          "no permutation: slot 5 stands in 2 rows (3, 7), slot 0 in none");
    CHECK(gather_said([](Found& f, const Routing&) {
            f[3] = f[4] = f[7];
            f[0] = f[11];
          }) ==
          "no permutation: slot 5 stands in 3 rows (3, 4, 7), slot 0 in none; 2 slots in several rows, 3 in "
          "none");
    CHECK(gather_said([](Found& f, const Routing&) { f[4] = 12; }) ==
          "1 index is out of range 0 to 11 (row 4: 12)");
    CHECK(gather_said([](Found& f, const Routing&) { f[4] = f[9] = -1; }) ==
          "2 indices are out of range 0 to 11 (row 4: -1)");
  }

  TEST_CASE("a list is no permutation however few of its wrong entries make it so") {
    const auto said = said_of(Field::gather_indices, [](Found& f, const Routing&) {
      for (const std::size_t r : {0, 2, 4, 6}) std::swap(f[r], f[r + 1]);
      f[8] = f[9];
    });
    CHECK(said.sentence.starts_with("no permutation: slot "));
    CHECK_FALSE(said.every_bit);
  }

  TEST_CASE("a permutation of another order says whether experts keep their slots") {
    CHECK(gather_said([](Found& f, const Routing&) { std::swap(f[0], f[5]); }) ==
          "the slots of rows 0 and 5 are exchanged");
    CHECK(gather_said([](Found& f, const Routing&) { std::swap(f[0], f[1]), std::swap(f[3], f[4]); }) ==
          "each expert has its own slots, in another order");
    CHECK(gather_said([](Found& f, const Routing& right) {
            std::ranges::stable_sort(f, std::greater<>(), [&](std::int32_t s) {
              return right.selected[static_cast<std::size_t>(s)];
            });
          }) == "the experts stand in descending order");
    const auto rotated = said_of(Field::gather_indices,
                                 [](Found& f, const Routing&) { std::ranges::rotate(f, f.begin() + 5); });
    CHECK(rotated.sentence == "a permutation, but 12 rows have slots that chose another expert");
    CHECK(rotated.every_bit);
  }

  TEST_CASE("offsets and padded counts are told from counts") {
    CHECK(counts_said([](Found& f, const Routing&) { std::partial_sum(f.begin(), f.end(), f.begin()); }) ==
          "running offsets stand for counts: where each expert's rows end");
    CHECK(counts_said([](Found& f, const Routing&) {
            std::exclusive_scan(f.begin(), f.end(), f.begin(), 0);
          }) == "running offsets stand for counts: where each expert's rows begin");
    CHECK(counts_said([](Found& f, const Routing&) {
            for (auto& count : f) count = (count + 7) / 8 * 8;
          }) == "counts are padded to multiples of 8");
    CHECK(counts_said([](Found& f, const Routing&) {
            for (auto& count : f) count = 16;
          }) == "every entry is 16");
    CHECK(counts_said([](Found& f, const Routing&) {
            for (auto& count : f) count = (count + 3) / 4 * 4;
            std::partial_sum(f.begin(), f.end(), f.begin());
          }) == "running offsets of counts padded to multiples of 4 stand for counts: ends");
    CHECK(counts_said([](Found& f, const Routing&) { std::ranges::rotate(f, f.begin() + 1); }) ==
          "every count is that of the next expert");
  }

  TEST_CASE("a miscount is said expert by expert, with what it does to the sum") {
    CHECK(counts_said([](Found& f, const Routing&) { ++f[3]; }) ==
          "expert 3 is counted 4 times, 3 slots chose it; the sum is 13, not 12");
    CHECK(counts_said([](Found& f, const Routing&) { ++f[3], --f[1]; }) ==
          "expert 1 is counted 3 times, 4 slots chose it; expert 3 is counted 4 times, 3 slots chose it");
  }

  TEST_CASE("random entries have no cause but that they are no permutation") {
    const auto said = said_of(Field::gather_indices, [](Found& f, const Routing&) {
      const std::int32_t random[] = {7, 1, 7, 0, 2, 2, 11, 3, 0, 9, 4, 1};
      std::ranges::copy(random, f.begin());
    });
    CHECK(said.sentence.starts_with("no permutation: slot 0 stands in 2 rows"));
    CHECK_FALSE(said.every_bit);
  }
}
