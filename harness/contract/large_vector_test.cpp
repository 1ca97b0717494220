#include "harness/contract/large_vector.h"

#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("large_vector") {
  TEST_CASE("pages that are given back serve the next vector as large, and no two at a time") {
    constexpr std::size_t kCount = (std::size_t{12} << 20) + 5;
    LargeVector<char> first(kCount, 'a');
    LargeVector<char> second(kCount, 'b');
    CHECK(first.data() != second.data());
    const char* const given_back = first.data();
    first = LargeVector<char>();
    const LargeVector<char> third(kCount, 'c');
#ifndef __SANITIZE_ADDRESS__  // which wants to see who reads what is no longer there
    CHECK(third.data() == given_back);
#endif
    CHECK(reinterpret_cast<std::uintptr_t>(third.data()) % kHugePage == 0);
    CHECK(second.front() == 'b');
    CHECK(second.back() == 'b');
    CHECK(third.back() == 'c');
  }

  TEST_CASE("small vectors come from the heap; sizes that nothing has are refused") {
    const LargeVector<std::int32_t> small(100, 7);
    CHECK(small.back() == 7);
#ifndef __SANITIZE_ADDRESS__  // which ends the program
    CHECK_THROWS_AS(LargeVector<std::int64_t>(std::size_t{1} << 50), std::bad_alloc);
#endif
    CHECK_THROWS_AS(FirstTouchAllocator<std::int64_t>().allocate(std::numeric_limits<std::size_t>::max() / 4),
                    std::bad_array_new_length);
  }
}
