// Files made to harm: each is one sentence, quickly, whatever the library makes of it.
#include <doctest/doctest.h>

#include <sys/stat.h>
#include <zlib.h>

#include <chrono>
#include <cstring>

#include <fmt/format.h>

#include "golden/foreign_file.h"
#include "golden/golden_file.h"
#include "golden/sealed_reader.h"
#include "golden/stored_dataset.h"
#include "golden/test_support.h"

using namespace assay;
using namespace assay::test;

namespace {

constexpr MoeConfig kConfig{2, 1, 2, 2, true};
constexpr const char* kHidden = "/forward/hidden_states";

/// A foreign candidate of two tokens with something done to it, and the reader's complaint.
std::string complaint(const std::function<void(Foreign&)>& operate,
                      const std::function<void(std::string&)>& patch = nullptr) {
  const TemporaryFolder folder;
  {
    Foreign foreign(folder / "f.h5", "candidate", kConfig, 1, 2);
    operate(foreign);
  }
  if (patch) {
    auto bytes = read_bytes(folder / "f.h5");
    patch(bytes);
    write_bytes(folder / "f.h5", bytes);
  }
  const auto start = std::chrono::steady_clock::now();
  const auto message = input_error([&] { read_golden(folder / "f.h5", {}); });
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
  CHECK(message.find('\n') == std::string::npos);
  return message;
}

struct Creation {
  hdf5::Handle list{H5Pcreate(H5P_DATASET_CREATE), H5Pclose};
  hid_t get() const { return list.get(); }
};

hdf5::Handle dataset(const Foreign& foreign, const char* path, hid_t type, const Shape& shape,
                     hid_t creation) {
  const std::vector<hsize_t> extents(shape.begin(), shape.end());
  const hdf5::Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                           H5Sclose);
  hdf5::Handle made(
      H5Dcreate2(foreign.file.get(), path, type, space.get(), H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose);
  REQUIRE(made.get() >= 0);
  return made;
}

/// A chunked int64 dataset [1024] whose only chunk is `chunk` as it stands, under the filters that `set`
/// adds.
std::string complaint_of_chunk(const std::string& chunk, const std::function<void(hid_t)>& set) {
  return complaint([&](Foreign& foreign) {
    const Creation creation;
    const hsize_t extent = 1024;
    H5Pset_chunk(creation.get(), 1, &extent);
    set(creation.get());
    const auto made = dataset(foreign, "/forward/gather_indices", H5T_STD_I64LE, {1024}, creation.get());
    const hsize_t origin = 0;
    REQUIRE(H5Dwrite_chunk(made.get(), H5P_DEFAULT, 0, &origin, chunk.size(), chunk.data()) >= 0);
  });
}

std::string deflated(const std::string& text) {
  auto size = compressBound(text.size());
  std::string out(size, '\0');
  REQUIRE(compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(text.data()),
                   text.size()) == Z_OK);
  out.resize(size);
  return out;
}

void set_deflate(hid_t creation) { H5Pset_deflate(creation, 4); }
void set_fletcher32(hid_t creation) { H5Pset_fletcher32(creation); }

}  // namespace

TEST_SUITE("golden hostile") {
  TEST_CASE(
      "data outside the file are not followed: external storage, virtual layouts, soft and external links") {
    CHECK(contains(complaint([](Foreign& foreign) {
                     const Creation creation;
                     H5Pset_external(creation.get(), "/etc/hostname", 0, 8);
                     dataset(foreign, kHidden, hdf5::bf16_type().get(), {2, 2}, creation.get());
                   }),
                   "/forward/hidden_states keeps its data in another file"));
    // Virtual layouts exist from HDF5 1.10 on: the writer's own format.
    const auto virtual_layout = complaint([](Foreign& foreign) {
      H5Fset_libver_bounds(foreign.file.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
      const Creation creation;
      const hsize_t extents[] = {2, 2};
      const hdf5::Handle space(H5Screate_simple(2, extents, nullptr), H5Sclose);
      H5Pset_virtual(creation.get(), space.get(), "/etc/hostname", "/x", space.get());
      dataset(foreign, kHidden, hdf5::bf16_type().get(), {2, 2}, creation.get());
    });
    // Its list of sources lies in the heap of texts and is none.
    CHECK(contains(virtual_layout, "the heap of texts"));
    CHECK(contains(complaint([](Foreign& foreign) {
                     H5Lcreate_soft("/elsewhere", foreign.file.get(), kHidden, H5P_DEFAULT, H5P_DEFAULT);
                   }),
                   "/forward/hidden_states is a soft link; only hard links are followed"));
    CHECK(contains(complaint([](Foreign& foreign) {
                     H5Lcreate_external("/etc/hostname", "/x", foreign.file.get(), kHidden, H5P_DEFAULT,
                                        H5P_DEFAULT);
                   }),
                   "/forward/hidden_states is a link to another file; only hard links are followed"));
  }

  TEST_CASE("filters other than shuffle, deflate and fletcher32 are refused by name") {
    const std::string chunk(64, '\x7f');
    CHECK(contains(complaint_of_chunk(chunk, [](hid_t list) { H5Pset_scaleoffset(list, H5Z_SO_INT, 3); }),
                   "/forward/gather_indices is stored with the filter 6 (scale-offset)"));
    CHECK(contains(complaint_of_chunk(chunk, [](hid_t list) { H5Pset_nbit(list); }), "the filter 5 (n-bit)"));
    CHECK(contains(complaint_of_chunk(chunk,
                                      [](hid_t list) {
                                        H5Pset_deflate(list, 4);
                                        H5Pset_deflate(list, 4);
                                      }),
                   "is stored with deflate twice"));
  }

  TEST_CASE("a chunk that is not exactly as long as its shape is refused, filtered or not") {
    const std::string whole(8 * 1024, '\x01');
    CHECK(contains(complaint_of_chunk(deflated("\1\2"), set_deflate), "does not inflate to its 8192 bytes"));
    CHECK(contains(complaint_of_chunk(deflated(whole + "\1"), set_deflate),
                   "does not inflate to its 8192 bytes"));
    CHECK(contains(complaint_of_chunk(deflated(whole) + "\1", set_deflate),
                   "does not inflate to its 8192 bytes"));
    CHECK(contains(complaint_of_chunk(std::string(24, '\0'), set_deflate),
                   "does not inflate to its 8192 bytes"));
    CHECK(contains(complaint_of_chunk("\1\2\3", set_fletcher32), "too few for its fletcher32"));
    CHECK(contains(complaint_of_chunk(whole + std::string(4, '\2'), set_fletcher32), "wrong fletcher32"));
  }

  TEST_CASE("a large size that few stored bytes claim is refused before memory is taken") {
    // 2^31 int64 in one chunk of 3 MB would inflate to 16 GB.
    CHECK(contains(complaint([](Foreign& foreign) {
                     const Creation creation;
                     const hsize_t chunk[] = {1, std::uint64_t{1} << 28};
                     H5Pset_chunk(creation.get(), 2, chunk);
                     set_deflate(creation.get());
                     const auto made = dataset(foreign, "/forward/gather_indices", H5T_STD_I64LE,
                                               {8, std::int64_t{1} << 28}, creation.get());
                     const hsize_t origin[] = {0, 0};
                     const auto stored = deflated(std::string(3 << 20, '\0'));
                     REQUIRE(H5Dwrite_chunk(made.get(), H5P_DEFAULT, 0, origin, stored.size(),
                                            stored.data()) >= 0);
                   }),
                   "was not written completely"));
  }

  TEST_CASE("what a description claims is held against the bytes that the file has") {
    const TemporaryFolder folder;
    write_bytes(folder / "f.h5", std::string(4096, '\0'));
    const auto file = std::make_shared<const OpenedFile>(folder / "f.h5");
    hdf5::StoredObject object;
    object.kind = hdf5::ObjectKind::Dataset;
    object.stored = hdf5::StoredAs::Bf16;
    object.type_name = "bfloat16";
    object.element_size = 2;
    object.shape = {std::int64_t{1} << 20, 4096};
    const auto refusal = [&] { return input_error([&] { hdf5::as_dataset(file, object, "/forward/x"); }); };
    const std::string expected =
        "/forward/x of shape [1048576, 4096], elements of 2 bytes, is more than 4096 stored bytes can hold";
    object.stretches = {{0, std::uint64_t{1} << 33, 0}};
    CHECK(contains(refusal(), expected));
    // Chunks that lie over one another add up to what is due, the file does not.
    object.chunk = {1 << 10, 4096};
    object.stretches.assign(1 << 10, {0, std::uint64_t{1} << 23, 0});
    CHECK(contains(refusal(), expected));
    object.filters = {{1, 4, "deflate"}};
    CHECK(contains(refusal(), expected));
    object.stretches = {{0, 4096, 0}};
    object.shape = object.chunk = {4096 * 1032 / 2, 1};  // the most that 4096 deflated bytes can be
    hdf5::as_dataset(file, object, "/forward/x");
    object.shape = object.chunk = {4096 * 1032 / 2 + 1, 1};
    CHECK(contains(refusal(), "is more than 4096 stored bytes can hold"));
    object.element_size = std::uint64_t{1} << 60;  // the product overflows
    CHECK(contains(refusal(), "is more than 4096 stored bytes can hold"));
  }

  TEST_CASE("integers whose bits do not fill their bytes are no integers of ours") {
    CHECK(contains(complaint([](Foreign& foreign) {
                     const hdf5::Handle type(H5Tcopy(H5T_STD_I32LE), H5Tclose);
                     H5Tset_precision(type.get(), 17);
                     H5Tset_offset(type.get(), 3);
                     const auto made = dataset(foreign, "/weights_like", type.get(), {2, 2}, H5P_DEFAULT);
                     const hdf5::Handle space(H5Screate(H5S_SCALAR), H5Sclose);
                     H5Adelete(foreign.file.get(), "batch");
                     const hdf5::Handle batch(H5Acreate2(foreign.file.get(), "batch", type.get(), space.get(),
                                                         H5P_DEFAULT, H5P_DEFAULT),
                                              H5Aclose);
                     const int one = 8;
                     H5Awrite(batch.get(), type.get(), &one);
                   }),
                   "attribute batch of the file: it holds 1 element of 17-bit integers at bit 3 of 4 bytes"));
  }

  TEST_CASE("a text that points out of the file's heap is refused") {
    // Version 1 object headers carry no checksum: length, address of the heap, index.
    const auto message =
        complaint([](Foreign& foreign) { hdf5::write_string(foreign.file, "device", "unusual text"); },
                  [](std::string& bytes) {
                    const auto text = bytes.find("unusual text");
                    REQUIRE(text != std::string::npos);
                    std::uint16_t index = 0;
                    std::memcpy(&index, bytes.data() + text - 16, sizeof index);
                    std::string descriptor = std::string("\x0c\0\0\0", 4);
                    const auto at = bytes.find("device");
                    REQUIRE(at != std::string::npos);
                    const auto found = bytes.find(descriptor, at);
                    REQUIRE(found < at + 200);
                    std::memcpy(bytes.data() + found + 12, "\xff\x7f\0\0", 4);
                  });
    CHECK_FALSE(message.empty());
  }

  TEST_CASE("tens of thousands of groups or attributes are refused quickly") {
    CHECK(contains(complaint([](Foreign& foreign) {
                     for (int i = 0; i < 30000; ++i)
                       H5Gclose(H5Gcreate2(foreign.file.get(), fmt::format("g{}", i).c_str(), H5P_DEFAULT,
                                           H5P_DEFAULT, H5P_DEFAULT));
                   }),
                   "it has more than 10000 objects"));
    CHECK(contains(complaint([](Foreign& foreign) {
                     const hdf5::Handle group(H5Gopen2(foreign.file.get(), "/forward", H5P_DEFAULT),
                                              H5Gclose);
                     for (int i = 0; i < 11000; ++i)
                       hdf5::write_int64(group, fmt::format("a{}", i).c_str(), i);
                   }),
                   "it has more than 10000 attributes"));
  }

  TEST_CASE("groups that contain themselves end") {
    const TemporaryFolder folder;
    {
      Foreign foreign(folder / "f.h5", "candidate", kConfig, 1, 2);
      H5Lcreate_hard(foreign.file.get(), "/forward", foreign.file.get(), "/forward/again", H5P_DEFAULT,
                     H5P_DEFAULT);
    }
    CHECK(
        contains(inspect_file(folder / "f.h5"), "/forward/again  is a group that has another name as well"));
  }

  TEST_CASE("a FIFO and a folder are one sentence each and nobody waits") {
    const TemporaryFolder folder;
    REQUIRE(::mkfifo((folder / "fifo.h5").c_str(), 0600) == 0);
    CHECK(contains(input_error([&] { read_golden(folder / "fifo.h5", {}); }), "it is not a regular file"));
    CHECK(contains(input_error([&] { inspect_file(folder.path()); }), "it is a folder"));
  }

  TEST_CASE("files of other filters chains, chunk shapes and byte orders are read as they are") {
    const TemporaryFolder folder;
    std::vector<std::int32_t> values(7 * 5);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int32_t>(i * 70001 % 65537);
    for (const int filters : {0, 1, 2, 3, 4, 5, 6, 7})
      for (const hid_t type : {H5T_STD_I32LE, H5T_STD_I32BE, H5T_STD_I64BE}) {
        {
          Foreign foreign(folder / "f.h5", "candidate", {2, 1, 5, 2, true}, 1, 7);
          const Creation creation;
          const hsize_t chunk[] = {3, 2};
          H5Pset_chunk(creation.get(), 2, chunk);
          if ((filters & 1) != 0) H5Pset_fletcher32(creation.get());
          if ((filters & 2) != 0) H5Pset_shuffle(creation.get());
          if ((filters & 4) != 0) H5Pset_deflate(creation.get(), 1);
          const auto made = dataset(foreign, "/forward/selected_experts", type, {7, 5}, creation.get());
          REQUIRE(H5Dwrite(made.get(), H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
        }
        const auto read = read_golden(folder / "f.h5", {});
        CHECK(
            std::ranges::equal(read.candidate.fields.at(Field::selected_experts).as<std::int32_t>(), values));
      }
  }

  TEST_CASE("reading a file costs little") {
    const TemporaryFolder folder;
    const auto sample = make_sample(kTinyConfig, 1, 2);
    write_golden(folder / "g.h5", sample.problem, sample.golden);
    std::chrono::duration<double, std::milli> least{1e9};
    for (int i = 0; i < 20; ++i) {
      const auto start = std::chrono::steady_clock::now();
      read_golden(folder / "g.h5", {});
      least = std::min<decltype(least)>(least, std::chrono::steady_clock::now() - start);
    }
    MESSAGE(fmt::format("{:.1f} ms a file", least.count()));
    CHECK(least.count() < 50.0);  // a process of its own for each costs that
  }
}
