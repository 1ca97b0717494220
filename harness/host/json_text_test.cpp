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
  TEST_CASE("what steers a terminal is written out, and read back as it was") {
    // CSI, OSC and NEL of C1, DEL, a right-to-left override; letters of two, three and four bytes stay.
    const std::string steering =
        "a\xc2\x9b"
        "2J\xc2\x9d\xc2\x85\x7f\xe2\x80\xae\x1b[1m";
    const std::string letters = "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
    for (const int indent : {-1, 2}) {
      const auto text = json_text({{"name", steering + letters}, {steering, {1, 2}}}, indent);
      for (const char* raw : {"\xc2\x9b", "\xc2\x9d", "\xc2\x85", "\x7f", "\xe2\x80\xae", "\x1b"})
        CHECK(text.find(raw) == std::string::npos);
      CHECK(text.find(letters) != std::string::npos);
      CHECK(parse_json(text).at("name") == steering + letters);
      CHECK(parse_json(text).contains(steering));
    }
  }
  TEST_CASE("bytes that are not UTF-8 end no document") { CHECK(json_text("a\xff") == "\"a\xef\xbf\xbd\""); }
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
  TEST_CASE("a zero byte ends no text") {
    using namespace std::string_view_literals;
    std::string twice;
    for (const auto text : {"{}\0"sv, "{}\0{"sv, "[1]\0\0"sv, "\0"sv}) {
      CHECK(parse_json(text).is_discarded());
      CHECK(parse_json(text, twice).is_discarded());
    }
    CHECK(parse_json("[1]").is_array());
  }
  TEST_CASE("no JSON is discarded") {
    for (const char* text : {"", "{", "nul", "[1,]", "{\"a\":1}x"}) CHECK(parse_json(text).is_discarded());
  }
}
