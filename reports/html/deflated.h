// Text that a page carries compressed and a browser unpacks with DecompressionStream("deflate-raw").
#pragma once

#include <string>
#include <string_view>

namespace assay {

/// RFC 1951, without a header. The same bytes for the same text.
std::string deflated(std::string_view text);

/// What `deflated` made it from. Throws InputError for anything else.
std::string inflated(std::string_view bytes);

}  // namespace assay
