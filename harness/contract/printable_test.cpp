// Nothing that steers a terminal gets through; everything else is as it was.
#include <doctest/doctest.h>

#include "harness/contract/printable.h"

using assay::printable;

TEST_SUITE("printable") {
  TEST_CASE("plain text and text of other languages stay") {
    CHECK(printable("second_gemm 1e-3 %\\") == "second_gemm 1e-3 %\\");
    CHECK(printable("Größe 東京 \xf0\x9f\x98\x80") == "Größe 東京 \xf0\x9f\x98\x80");
  }
  TEST_CASE("control characters, C1 controls and marks of direction are written out") {
    CHECK(printable("a\x1b[2Jb\rc\td\x7f") == "a\\x1b[2Jb\\x0dc\\x09d\\x7f");
    CHECK(printable("\xc2\x9b"
                    "31m") == "\\xc2\\x9b31m");
    CHECK(printable("\xe2\x80\xae"
                    "x") == "\\xe2\\x80\\xaex");
    CHECK(printable("one\ntwo") == "one\\x0atwo");
    CHECK(printable("one\ntwo\x1b", true) == "one\ntwo\\x1b");
    CHECK(printable(std::string_view("\0", 1)) == "\\x00");
  }
  TEST_CASE("invalid UTF-8 is written out byte by byte") {
    CHECK(printable("\x9b"
                    "31m") == "\\x9b31m");
    CHECK(printable("\xc3") == "\\xc3");
    CHECK(printable("\xc0\xaf") == "\\xc0\\xaf");
    CHECK(printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");
    CHECK(printable("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");
    CHECK(printable("\xe2\x80") == "\\xe2\\x80");
  }
}
