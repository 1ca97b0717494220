// What `assay inspect` says of a file.
#include <doctest/doctest.h>

#include "golden/foreign_file.h"
#include "golden/golden_file.h"
#include "golden/test_support.h"

using namespace assay;
using namespace assay::test;

TEST_SUITE("golden inspect") {
  TEST_CASE("an inspection shows attributes, ranges, non-finite values and whether hashes hold") {
    const TemporaryFolder folder;
    auto sample = make_sample(kTinyConfig, 1, 2);
    use_generators(sample.problem);
    Tensor hidden(DType::BFloat16, {2, 4});
    hidden.as<Bf16>()[1] = {0x7fc0};
    hidden.as<Bf16>()[2] = {0xff80};
    hidden.as<Bf16>()[3] = {0xc000};
    sample.golden.fields.set(Field::hidden_states, hidden);
    write_golden(folder / "g.h5", sample.problem, sample.golden);
    const auto text = inspect_file(folder / "g.h5");
    CHECK(contains(text, "kind = golden"));
    CHECK(contains(text,
                   "/forward/hidden_states  bfloat16 [1, 2, 4], computed, min -2, max 0, absmax 2, nan 1, "
                   "inf 1, hash ok"));
    CHECK(contains(text, "/weights/gate_up_proj  regenerated:"));
    CHECK(contains(text, "scale = 0.10000000000000001"));
    CHECK(contains(text, "content hash: ok"));
    {
      Surgery surgery(folder / "g.h5");
      surgery.remove("/forward/first_gemm");
    }
    CHECK(contains(inspect_file(folder / "g.h5"), "content hash: WRONG"));
    {
      Foreign foreign(folder / "f.h5", "candidate", kTinyConfig, 1, 2, "3.0");
    }
    CHECK(contains(inspect_file(folder / "f.h5"), "not a file of the schema: schema_version"));
  }
}
