// Linked with product kernels that leave out the last term of a sum: the plain layer finds it before anybody
// is judged by it.
#include <doctest/doctest.h>

#include "harness/contract/upstream.h"
#include "reference_cpu/eigen/plain_problem.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;

TEST_CASE("a fault in the judge's own kernels is found by the plain layer") {
  REQUIRE(use_product_kernels("baseline"));
  const Problem problem = plain::eighths({24, 16, 5, 3, true}, 11, 3).problem;
  const PrecisionContract& contract = find_contract("hf");
  const Candidate candidate = forward(problem, contract);
  const Upstream upstream = usable_upstream(problem, candidate.fields);
  const auto reference = make_reference(problem, upstream, contract, {}, false);
  for (const Field field : {Field::router_logits, Field::first_gemm, Field::second_gemm}) {
    const std::string named =
        "disagrees with itself, so nothing can be judged by it: " + std::string(name(field));
    CHECK_THROWS_WITH(reference->bounded(field, Mode::Isolated, all_rows(field, problem.sizes())),
                      doctest::Contains(named.c_str()));
  }
}
