// A depth limit that the parser's stack never meets.
#include <doctest/doctest.h>

#include <string>

#include "harness/host/json_text.h"

using namespace assay;

namespace {
std::string nested(int depth) {
  return std::string(static_cast<std::size_t>(depth), '[') +
         std::string(static_cast<std::size_t>(depth), ']');
}
}  // namespace

TEST_SUITE("json_text") {
  TEST_CASE("64 levels are read, 65 and a million are not") {
    CHECK_FALSE(parse_json(nested(64)).is_discarded());
    CHECK(parse_json(nested(65)).is_discarded());
    CHECK(parse_json(std::string(1'000'000, '[')).is_discarded());
    std::string objects;
    for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
    CHECK(parse_json(objects).is_discarded());
  }
  TEST_CASE("brackets in strings do not count, and escaped quotes do not end them") {
    CHECK_FALSE(parse_json("\"" + std::string(1000, '[') + "\"").is_discarded());
    CHECK_FALSE(parse_json("[\"\\\"" + std::string(1000, '{') + "\"]").is_discarded());
    CHECK(json_is_too_deep("[\"a\\\\\"," + nested(64) + "]"));
  }
  TEST_CASE("closing brackets without opening ones do not make room") {
    // "]]]" is no JSON; a scan that counted below zero would let a deep text follow.
    CHECK(parse_json(std::string(1000, ']') + nested(1064)).is_discarded());
  }
  TEST_CASE("no JSON is discarded") {
    for (const char* text : {"", "{", "nul", "[1,]", "{\"a\":1}x"}) CHECK(parse_json(text).is_discarded());
  }
}
