// What the reader accepts from others, and what it refuses and how it says so.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "golden/foreign_file.h"
#include "golden/golden_file.h"
#include "golden/hdf5_dataset.h"
#include "golden/test_support.h"

using namespace assay;
using namespace assay::test;

namespace {

template <class T>
std::vector<T> converted(const Tensor& tensor) {
  std::vector<T> out;
  if (tensor.dtype() == DType::Int32)
    for (const auto value : tensor.as<std::int32_t>()) out.push_back(static_cast<T>(value));
  else
    for (const auto value : tensor.as<Bf16>()) out.push_back(static_cast<T>(to_float(value)));
  return out;
}

bool has_remark(const Candidate& candidate, const std::string& part) {
  for (const auto& remark : candidate.remarks)
    if (remark.find(part) != std::string::npos) return true;
  return false;
}

/// Writes the sample, operates on it, and returns the reader's complaint.
std::string complaint(const Sample& sample, const std::function<void(Surgery&)>& operate) {
  const TemporaryFolder folder;
  write_golden(folder / "sample.h5", sample.problem, sample.golden);
  {
    Surgery surgery(folder / "sample.h5");
    operate(surgery);
  }
  return input_error([&] { read_golden(folder / "sample.h5", test_regenerators()); });
}

}  // namespace

TEST_SUITE("golden input") {
  TEST_CASE("all three layouts of bfloat16 and integers of other widths are read from a foreign file") {
    const TemporaryFolder folder;
    auto sample = make_sample(kTinyConfig, 2, 3);
    auto& fields = sample.golden.fields;
    auto indices = fields.at(Field::selected_experts).as<std::int32_t>();
    for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<std::int32_t>(i % 5);
    fields.at(Field::first_gemm).as<Bf16>()[0] = {0x7f81};  // a signalling NaN with a payload
    std::vector<std::uint32_t> wide;
    for (const auto value : fields.at(Field::first_gemm).as<Bf16>())
      wide.push_back(std::uint32_t{value.bits} << 16);
    {
      Foreign foreign(folder / "foreign.h5", "candidate", kTinyConfig, 2, 3);
      Surgery surgery(folder / "foreign.h5");
      surgery.add("/forward/hidden_states", hdf5::bf16_type().get(), {6, 4},
                  fields.at(Field::hidden_states).bytes().data());
      surgery.add("/forward/topk_weights", H5T_STD_U16LE, {6, 2},
                  fields.at(Field::topk_weights).bytes().data(), "bfloat16");
      surgery.add("/forward/first_gemm", H5T_IEEE_F32LE, {12, 6}, wide.data(), "bfloat16");
      const auto selected = converted<std::int64_t>(fields.at(Field::selected_experts));
      surgery.add("/forward/selected_experts", H5T_STD_I64LE, {6, 2}, selected.data());
      const auto counts = std::vector<std::uint8_t>{1, 2, 3, 4, 255};
      surgery.add("/forward/token_counts_by_expert", H5T_STD_U8LE, {5}, counts.data());
      surgery.add("/forward/somebody_elses", H5T_STD_U8LE, {5}, counts.data());
    }
    const auto read = read_golden(folder / "foreign.h5", {});
    for (const Field field :
         {Field::hidden_states, Field::topk_weights, Field::first_gemm, Field::selected_experts})
      CHECK(same_tensor(read.candidate.fields.at(field), fields.at(field)));
    CHECK(read.candidate.fields.at(Field::token_counts_by_expert).as<std::int32_t>()[4] == 255);
    CHECK(read.problem.name == "foreign");
    CHECK(has_remark(read.candidate, "5 datasets have no SHA-256"));
    CHECK(has_remark(read.candidate, "no content hash"));
    CHECK(has_remark(read.candidate, "does not state fixture"));
    CHECK(has_remark(read.candidate, "stored as uint16"));
    CHECK(has_remark(read.candidate, "stored as float32 with zero low halves"));
    CHECK(has_remark(read.candidate, "/forward/somebody_elses is not part of the schema"));
    CHECK(has_remark(read.candidate, "no complete inputs and weights"));
  }

  TEST_CASE(
      "a candidate's field in a storage that cannot be its dtype is that field's verdict, with the repair") {
    const TemporaryFolder folder;
    const std::vector<float> singles = {1.0f, -0.1f, std::numeric_limits<float>::infinity(), 1e-45f};
    const std::vector<std::uint16_t> halves = {0x3c00, 0x8001, 0xfc00, 0x7bff};
    const std::vector<std::int64_t> far = {0, -1, std::int64_t{1} << 40, -(std::int64_t{1} << 40)};
    const std::vector<double> counts = {2.0, 2.0};
    {
      Foreign foreign(folder / "f.h5", "candidate", {2, 1, 2, 2, true}, 1, 2);
      Surgery surgery(folder / "f.h5");
      surgery.add("/forward/hidden_states", H5T_IEEE_F32LE, {2, 2}, singles.data());
      surgery.add("/forward/router_logits", H5T_IEEE_F32LE, {2, 2}, singles.data(), "bfloat16");
      const hdf5::Handle half(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
      H5Tset_fields(half.get(), 15, 10, 5, 0, 10);
      H5Tset_size(half.get(), 2);
      H5Tset_ebias(half.get(), 15);
      surgery.add("/forward/topk_weights", half.get(), {2, 2}, halves.data());
      surgery.add("/forward/selected_experts", H5T_STD_I64LE, {2, 2}, far.data());
      surgery.add("/forward/token_counts_by_expert", H5T_IEEE_F64LE, {2}, counts.data());
    }
    const auto read = read_golden(folder / "f.h5", {});
    const auto sentence = [&](Field field) {
      const auto found = read.candidate.misstored.find(field);
      REQUIRE(found != read.candidate.misstored.end());
      CHECK(found->second.verdict == Verdict::WrongDtype);
      CHECK_FALSE(read.candidate.fields.has(field));
      return found->second.sentence;
    };
    for (const Field field : {Field::hidden_states, Field::router_logits})
      CHECK(
          contains(sentence(field),
                   "expected bfloat16, found float32 whose element 1 is 0xbdcccccd, which is not a bfloat16 "
                   "value; store the bfloat16 values themselves"));
    CHECK(contains(sentence(Field::topk_weights), "expected bfloat16, found float16; store"));
    // A dtype of the contract, only the wrong one: the judge says so.
    CHECK(read.candidate.fields.at(Field::token_counts_by_expert).dtype() == DType::Float64);
    const auto selected = read.candidate.fields.at(Field::selected_experts).as<std::int32_t>();
    CHECK(selected[1] == -1);
    CHECK(selected[2] == std::numeric_limits<std::int32_t>::max());
    CHECK(selected[3] == std::numeric_limits<std::int32_t>::min());
    CHECK(has_remark(read.candidate,
                     "/forward/selected_experts: element 2 is 1099511627776, which int32 cannot hold"));
  }

  TEST_CASE("a field far larger than it may be is not read: its shape is its verdict") {
    const TemporaryFolder folder;
    constexpr hsize_t kElements = hsize_t{1} << 26;
    {
      Foreign foreign(folder / "f.h5", "candidate", {2, 1, 2, 2, true}, 1, 2);
      const hdf5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
      H5Pset_chunk(creation.get(), 1, &kElements);
      H5Pset_deflate(creation.get(), 1);
      const hdf5::Handle space(H5Screate_simple(1, &kElements, nullptr), H5Sclose);
      const hdf5::Handle set(H5Dcreate2(foreign.file.get(), "/forward/gather_indices", H5T_STD_I8LE,
                                        space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
                             H5Dclose);
      const std::vector<std::int8_t> zeros(kElements);
      REQUIRE(H5Dwrite(set.get(), H5T_STD_I8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data()) >= 0);
    }
    const auto read = read_golden(folder / "f.h5", {});
    const auto found = read.candidate.misstored.find(Field::gather_indices);
    REQUIRE(found != read.candidate.misstored.end());
    CHECK(found->second.verdict == Verdict::WrongShape);
    CHECK(found->second.sentence == "expected shape [4], found [67108864], which is not read");
  }

  TEST_CASE("another major version is refused, another minor version is read") {
    const TemporaryFolder folder;
    for (const char* version : {"2.0", "0.9", "1", "one", ""}) {
      {
        Foreign foreign(folder / "f.h5", "candidate", kTinyConfig, 1, 2, version);
      }
      CHECK(contains(input_error([&] { read_golden(folder / "f.h5", {}); }),
                     "schema_version: this program reads major version 1"));
    }
    {
      Foreign foreign(folder / "f.h5", "candidate", kTinyConfig, 1, 2, "1.99");
    }
    CHECK(input_error([&] { read_golden(folder / "f.h5", {}); }).empty());
  }

  TEST_CASE("unknown kinds and missing root attributes are named") {
    const TemporaryFolder folder;
    {
      Foreign foreign(folder / "f.h5", "oracle", kTinyConfig, 1, 2);
    }
    CHECK(contains(input_error([&] { read_golden(folder / "f.h5", {}); }),
                   "expected golden, candidate or predicted, found 'oracle'"));
    for (const char* name : {"schema", "schema_version", "kind", "contract", "config", "batch", "sequence"})
      CHECK(contains(
          complaint(make_sample(kTinyConfig, 1, 2), [&](Surgery& s) { s.remove_attribute("/", name); }),
          std::string("the root attribute '") + name + "' is missing"));
    CHECK(contains(
        complaint(make_sample(kTinyConfig, 1, 2), [&](Surgery& s) { s.remove_attribute("/", "schema"); }),
        "assay_golden.Candidate (golden/python) writes one"));
  }

  TEST_CASE("a field that a golden lacks is named") {
    const auto sample = make_sample(kTinyConfig, 1, 2);
    const auto without = [&](const char* path) {
      return complaint(sample, [&](Surgery& s) {
        s.remove(path);
        s.remove_attribute("/", "content_sha256");
      });
    };
    for (const char* path : {"/forward/second_gemm", "/forward/selected_experts", "/weights/down_proj",
                             "/inputs/input_hidden_states"})
      CHECK(contains(without(path), std::string("the golden lacks ") + path));
    CHECK(contains(complaint(sample, [](Surgery& s) { s.remove("/forward/second_gemm"); }), "content hash"));
  }

  TEST_CASE("a golden's wrong shape or dtype is an error with both shapes") {
    const auto sample = make_sample(kTinyConfig, 1, 2);
    const std::vector<std::int32_t> zeros(64);
    const auto replaced = [&](const char* path, hid_t type, const Shape& shape) {
      return complaint(sample, [&](Surgery& s) {
        s.remove(path);
        s.add(path, type, shape, zeros.data());
        s.remove_attribute("/", "content_sha256");
      });
    };
    CHECK(contains(replaced("/forward/selected_experts", H5T_STD_I32LE, {2, 3}),
                   "/forward/selected_experts: expected int32 [2, 2], found int32 [2, 3]"));
    CHECK(contains(replaced("/forward/router_logits", H5T_STD_I32LE, {2, 5}),
                   "/forward/router_logits: expected bfloat16 [2, 5], found int32 [2, 5]"));
    CHECK(contains(replaced("/weights/gate", hdf5::bf16_type().get(), {4, 5}),
                   "/weights/gate: expected bfloat16 [5, 4], found bfloat16 [4, 5]"));
  }

  TEST_CASE("a hash that does not match names the dataset") {
    const auto sample = make_sample(kTinyConfig, 1, 2);
    const auto message = complaint(sample, [](Surgery& s) {
      const hdf5::Handle set(H5Dopen2(s.file.get(), "/forward/intermediate", H5P_DEFAULT), H5Dclose);
      std::vector<std::uint16_t> values(12, 0x3f80);
      REQUIRE(H5Dwrite(set.get(), hdf5::bf16_type().get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >=
              0);
    });
    CHECK(contains(message, "/forward/intermediate: the SHA-256 of its data is"));
  }

  TEST_CASE("attributes that contradict each other or the data are refused") {
    const auto sample = make_sample(kTinyConfig, 1, 2);
    const auto with_attribute = [&](const char* path, const char* name, const char* value) {
      return complaint(sample, [&](Surgery& s) {
        s.remove_attribute(path, name);
        const hdf5::Handle object(H5Oopen(s.file.get(), path, H5P_DEFAULT), H5Oclose);
        Surgery::fixed_string(object, name, value);
      });
    };
    CHECK(!with_attribute("/forward/gather_indices", "dtype", "bfloat16").empty());
    CHECK(!with_attribute("/forward/gather_indices", "origin", "guessed").empty());
    CHECK(!with_attribute("/", "producer", "somebody else").empty());
    CHECK(!with_attribute("/", "config", "{}").empty());
  }

  TEST_CASE("bad JSON, sizes and names in root attributes are one sentence each") {
    const TemporaryFolder folder;
    const auto with_config = [&](const MoeConfig& config, std::int64_t batch) {
      {
        Foreign foreign(folder / "f.h5", "candidate", config, batch, 2);
      }
      return input_error([&] { read_golden(folder / "f.h5", {}); });
    };
    CHECK(contains(with_config({4, 3, 2, 3, true}, 1), "top_k must not exceed num_experts"));
    CHECK(contains(with_config({0, 3, 2, 1, true}, 1), "hidden_size must lie in"));
    CHECK(contains(with_config(kTinyConfig, -1), "'batch' must be at least 0, found -1"));
    CHECK(contains(with_config(kTinyConfig, std::int64_t{1} << 62), "tokens"));
  }

  TEST_CASE("files that are not there, not HDF5 or cut short are named") {
    const TemporaryFolder folder;
    const auto message = [&](const char* name) {
      return input_error([&] { read_golden(folder / name, {}); });
    };
    CHECK(contains(message("absent.h5"), "No such file"));
    write_bytes(folder / "text.h5", "this is no HDF5 file, only a text of some length");
    CHECK(contains(message("text.h5"), "text.h5: cannot open it as HDF5: "));
    write_bytes(folder / "empty.h5", "");
    CHECK(contains(message("empty.h5"), "empty.h5: cannot open it as HDF5: "));
    CHECK(contains(input_error([&] { read_golden(folder.path(), {}); }), "it is a folder"));

    const auto sample = make_sample(kTinyConfig, 1, 2);
    write_golden(folder / "whole.h5", sample.problem, sample.golden);
    const auto bytes = read_bytes(folder / "whole.h5");
    for (std::size_t length = 0; length < bytes.size(); length += 97) {
      write_bytes(folder / "cut.h5", bytes.substr(0, length));
      CHECK_FALSE(message("cut.h5").empty());
    }
  }

  TEST_CASE("regenerated tensors are checked against their hash, shape and generator") {
    const TemporaryFolder folder;
    auto sample = make_sample(kTinyConfig, 1, 2);
    use_generators(sample.problem);
    write_golden(folder / "g.h5", sample.problem, sample.golden);
    auto other = test_regenerators();
    other.tensor = [](const Generator& generator) { return Tensor(DType::BFloat16, generator.shape); };
    CHECK(contains(input_error([&] { read_golden(folder / "g.h5", other); }),
                   "/inputs/input_hidden_states: regenerated with fill 'gaussian'"));
    CHECK(contains(input_error([&] { read_golden(folder / "g.h5", {}); }), "no generator is at hand"));
    sample.problem.generators[static_cast<std::size_t>(Field::gate)]->shape = {4, 5};
    write_golden(folder / "g.h5", sample.problem, sample.golden);
    CHECK(contains(input_error([&] { read_golden(folder / "g.h5", test_regenerators()); }),
                   "/weights/gate: expected shape [5, 4], found [4, 5]"));
  }

  TEST_CASE("a dataset that was declared and never written is refused, however large it claims to be") {
    const TemporaryFolder folder;
    {
      Foreign foreign(folder / "f.h5", "candidate", {2, 1, 2, 2, true}, 1, 2);
      Surgery(folder / "f.h5").add("/forward/hidden_states", H5T_IEEE_F64LE, {1 << 20, 1 << 30}, nullptr);
    }
    CHECK(contains(input_error([&] { read_golden(folder / "f.h5", {}); }),
                   "/forward/hidden_states of shape [1048576, 1073741824] was never written"));
  }
}
