// SHA-256 over OpenSSL, as lower-case hex text.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace assay {

/// SHA-256 of raw bytes, 64 lower-case hex digits.
std::string sha256_hex(std::span<const std::byte> bytes);

/// SHA-256 of a text's UTF-8 bytes.
std::string sha256_hex(std::string_view text);

/// Hexadecimal digits in the case that sha256_hex writes: other tools write the other one.
std::string lower_case(std::string hash);

}  // namespace assay
