#include "reports/html/deflated.h"

#include <fmt/format.h>
#include <zlib.h>

#include "harness/contract/error.h"

namespace assay {
namespace {

constexpr int kWithoutHeader = -15;  // largest window; negative: raw
constexpr int kMemory = 9;
constexpr std::size_t kChunk = std::size_t{1} << 18;

Bytef* bytes_of(std::string_view text) {
  return const_cast<Bytef*>(reinterpret_cast<const Bytef*>(text.data()));  // zlib only reads it
}

/// Calls `step(stream)` with room for a chunk until it says that the stream has ended.
template <class Step>
std::string run(z_stream& stream, std::string_view text, Step step) {
  std::string out;
  std::string chunk(kChunk, '\0');
  stream.next_in = bytes_of(text);
  stream.avail_in = static_cast<uInt>(text.size());
  while (true) {
    stream.next_out = bytes_of(chunk);
    stream.avail_out = static_cast<uInt>(chunk.size());
    const int result = step(stream);
    out.append(chunk, 0, chunk.size() - stream.avail_out);
    if (result == Z_STREAM_END) return out;
    if (result != Z_OK)
      throw InputError(fmt::format("expected deflated text to end well, found zlib's error {}", result));
  }
}

}  // namespace

std::string deflated(std::string_view text) {
  z_stream stream{};
  if (deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, kWithoutHeader, kMemory, Z_DEFAULT_STRATEGY) !=
      Z_OK)
    throw InputError("expected room to compress a page's details, found none");
  std::string out = run(stream, text, [](z_stream& s) { return deflate(&s, Z_FINISH); });
  deflateEnd(&stream);
  return out;
}

std::string inflated(std::string_view bytes) {
  z_stream stream{};
  if (inflateInit2(&stream, kWithoutHeader) != Z_OK)
    throw InputError("expected room to unpack a page's details, found none");
  struct End {
    z_stream& stream;
    ~End() { inflateEnd(&stream); }
  } end{stream};
  return run(stream, bytes, [](z_stream& s) { return inflate(&s, Z_NO_FLUSH); });
}

}  // namespace assay
