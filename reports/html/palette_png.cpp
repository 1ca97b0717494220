#include "reports/html/palette_png.h"

#include <fmt/format.h>
#include <png.h>

#include "harness/contract/error.h"

namespace assay {
namespace {

[[noreturn]] void refuse(png_structp, png_const_charp message) {
  throw InputError(fmt::format("expected libpng to write a picture, found: {}", message));
}

void append(png_structp png, png_bytep bytes, png_size_t count) {
  static_cast<std::string*>(png_get_io_ptr(png))->append(reinterpret_cast<const char*>(bytes), count);
}

struct PngWriter {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, refuse, nullptr);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  PngWriter() = default;
  PngWriter(const PngWriter&) = delete;
  PngWriter& operator=(const PngWriter&) = delete;
  ~PngWriter() { png_destroy_write_struct(&png, &info); }
};

}  // namespace

std::string palette_png(std::span<const std::string> rows, std::span<const PaletteColour> colours,
                        std::uint8_t (*index)(char)) {
  if (rows.empty() || rows.front().empty()) throw InputError("expected a picture, found no pixels");
  const PngWriter writer;
  if (writer.info == nullptr) throw InputError("expected room for a picture, found none");
  std::string file;
  png_set_write_fn(writer.png, &file, append, nullptr);
  png_set_compression_level(writer.png, 9);
  png_set_filter(writer.png, PNG_FILTER_TYPE_BASE, PNG_FILTER_NONE);  // best for palettes
  png_set_IHDR(writer.png, writer.info, static_cast<png_uint_32>(rows.front().size()),
               static_cast<png_uint_32>(rows.size()), 8, PNG_COLOR_TYPE_PALETTE, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  std::vector<png_color> palette;
  std::vector<png_byte> alpha;
  for (const PaletteColour& c : colours) {
    palette.push_back({c.red, c.green, c.blue});
    alpha.push_back(c.alpha);
  }
  png_set_PLTE(writer.png, writer.info, palette.data(), static_cast<int>(palette.size()));
  png_set_tRNS(writer.png, writer.info, alpha.data(), static_cast<int>(alpha.size()), nullptr);
  png_write_info(writer.png, writer.info);
  std::vector<png_byte> line(rows.front().size());
  for (const std::string& row : rows) {
    if (row.size() != line.size())
      throw InputError(fmt::format("expected {} pixels in each row, found {}", line.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) line[i] = index(row[i]);
    png_write_row(writer.png, line.data());
  }
  png_write_end(writer.png, writer.info);
  return file;
}

}  // namespace assay
