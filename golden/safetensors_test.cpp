// safetensors: what is read, and every way in which a file can lie.
#include <doctest/doctest.h>

#include <cstring>

#include <fmt/format.h>

#include "golden/safetensors.h"
#include "golden/test_support.h"
#include "harness/contract/error.h"

using namespace assay;
using namespace assay::test;

namespace {

std::string with_header(const std::string& header, const std::string& buffer) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + buffer;
}

std::string complaint(const std::string& bytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "x.safetensors", bytes);
  return input_error([&] { open_safetensors(folder / "x.safetensors"); });
}

void check_refused(const std::string& header, const std::string& buffer, const std::string& part) {
  const auto message = complaint(with_header(header, buffer));
  CHECK_MESSAGE(message.find(part) != std::string::npos, message);
  CHECK(message.find("x.safetensors") != std::string::npos);
}

const std::string kTwo =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[4,8]},)"
    R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";

}  // namespace

TEST_SUITE("golden safetensors") {
  TEST_CASE("tensors are found by name, whatever their order, with padding behind the header") {
    const TemporaryFolder folder;
    write_bytes(folder / "x.safetensors", with_header(kTwo + "   ", "abcdefgh"));
    const auto file = open_safetensors(folder / "x.safetensors");
    REQUIRE(file.tensors.size() == 2);
    const auto& b = file.tensors.at("b");
    CHECK(b.dtype == "BF16");
    CHECK(b.shape == Shape{1, 2});
    std::string bytes(4, '\0');
    REQUIRE(b.size == bytes.size());
    file.source->read(b.begin, std::as_writable_bytes(std::span(bytes)));
    CHECK(bytes == "efgh");
  }

  TEST_CASE("empty tensors, scalars and sub-byte types are legal") {
    CHECK(complaint(with_header(R"({"e":{"dtype":"I64","shape":[0,3],"data_offsets":[0,0]},)"
                                R"("s":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
                                R"("f":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[1,4]}})",
                                "abcd"))
              .empty());
    CHECK(complaint(with_header("{}", "")).empty());
  }

  TEST_CASE("a header that is cut, too long, or not JSON is refused") {
    CHECK(complaint("abc").find("3 bytes, too few") != std::string::npos);
    CHECK(complaint(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10))
              .find("more than the 100000000 allowed") != std::string::npos);
    CHECK(complaint(std::string("\x64\0\0\0\0\0\0\0{}", 10)).find("claims 100 bytes, the file has 2") !=
          std::string::npos);
    check_refused(" {}", "", "does not start with '{'");
    check_refused("", "", "does not start with '{'");
    check_refused(R"({"a":)", "", "not JSON");
    check_refused("{} x", "", "not JSON");
    check_refused("{\"\xff\":1}", "", "not JSON");
  }

  TEST_CASE("every truncation of a file is refused") {
    const auto whole = with_header(kTwo, "abcdefgh");
    CHECK(complaint(whole).empty());
    for (std::size_t length = 0; length < whole.size(); ++length)
      CHECK_FALSE(complaint(whole.substr(0, length)).empty());
  }

  TEST_CASE("a name that occurs twice is refused") {
    check_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                  "x", "the name 'a' occurs twice");
    check_refused(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", "x",
                  "the name 'dtype' occurs twice");
  }

  TEST_CASE("overlaps, holes and bytes that belong to no tensor are refused") {
    const auto two = [](int a0, int a1, int b0, int b1) {
      return fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                         R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                         a1 - a0, a0, a1, b1 - b0, b0, b1);
    };
    CHECK(complaint(with_header(two(0, 4, 4, 8), "abcdefgh")).empty());
    check_refused(two(0, 5, 4, 8), "abcdefgh", "tensor 'b' overlaps another at byte 4");
    check_refused(two(0, 8, 0, 8), "abcdefgh", "overlaps another at byte 0");
    check_refused(two(0, 3, 4, 8), "abcdefgh", "bytes 3 to 4 before tensor 'b' belong to no tensor");
    check_refused(two(1, 4, 4, 8), "abcdefgh", "bytes 0 to 1 before tensor 'a'");
    check_refused(two(0, 4, 4, 8), "abcdefghi", "the last 1 bytes belong to no tensor");
    check_refused(two(0, 4, 4, 9), "abcdefgh", "tensor 'b' lies at bytes 4 to 9 of 8");
  }

  TEST_CASE("sizes, shapes and dtypes must agree, products that overflow included") {
    const auto one = [](const char* dtype, const char* shape, const char* offsets) {
      return fmt::format(R"({{"t":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
    };
    CHECK(complaint(with_header(one("\"BF16\"", "[2,1]", "[0,4]"), "abcd")).empty());
    check_refused(one("\"BF16\"", "[3,1]", "[0,4]"), "abcd", "needs 6 bytes, found 4");
    check_refused(one("\"BF17\"", "[2,1]", "[0,4]"), "abcd", "tensor 't' has the unknown dtype 'BF17'");
    check_refused(one("\"F4\"", "[3]", "[0,4]"), "abcd", "does not fill whole bytes");
    check_refused(one("\"BF16\"", "[4294967296,4294967296,2]", "[0,0]"), "", "is too large");
    check_refused(one("\"BF16\"", "[-2]", "[0,4]"), "abcd", "not a natural number");
    check_refused(one("\"BF16\"", "[2.0]", "[0,4]"), "abcd", "not a natural number");
    check_refused(one("\"BF16\"", "[18446744073709551615]", "[0,4]"), "abcd", "not a natural number");
    check_refused(one("\"BF16\"", "[2]", "[4,0]"), "abcd", "lies at bytes 4 to 0");
    check_refused(one("\"BF16\"", "[2]", "[0,4,4]"), "abcd", "two data_offsets");
    check_refused(one("7", "[2]", "[0,4]"), "abcd", "expected a dtype text");
    check_refused(R"({"t":{"dtype":"U8","shape":[1]}})", "a", "tensor 't' has no data_offsets");
    check_refused(R"({"t":[]})", "a", "tensor 't' is not described by an object");
    check_refused(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":1}})", "a",
                  "unknown key 'stride'");
    check_refused(R"({"__metadata__":{"n":1}})", "", "__metadata__");
  }

  TEST_CASE("a flip of any bit of the header is refused or leaves every tensor inside the file") {
    const TemporaryFolder folder;
    const auto whole = with_header(kTwo, "abcdefgh");
    int refused = 0;
    for (std::size_t bit = 0; bit < 8 * (whole.size() - 8); ++bit) {
      auto bytes = whole;
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
      write_bytes(folder / "x.safetensors", bytes);
      try {
        const auto file = open_safetensors(folder / "x.safetensors");
        for (const auto& [name, tensor] : file.tensors) CHECK(tensor.begin + tensor.size <= whole.size());
      } catch (const InputError&) {
        ++refused;
      }
    }
    CHECK(refused > 0);
  }
}
