#include "harness/cli/mutate/mutate_evidence.h"

#include <doctest/doctest.h>

#include "harness/cli/mutate/mutation.h"

using namespace assay;
using namespace assay::cli;

TEST_SUITE("mutate-evidence") {
  TEST_CASE("the page and the document show every fault and what each rule made of it") {
    std::vector<Mutation> mutations;
    for (const char* fault : {"output_bit_flipped", "count_plus_one"})
      mutations.push_back(plant(find_fault(fault), make_ground("odd", "hf"), "odd"));
    const auto all = sensitivity(mutations, {}, "a <command>");
    REQUIRE(all.faults.size() == 2);
    const auto document = render_sensitivity_markdown(all);
    const auto page = render_sensitivity_html(all);
    // In the order of the rules: five detectors, assay with nothing declared, assay, six rules of thumb.
    CHECK(document.find("| count_plus_one: one expert's count is one too high | token_counts_by_expert | - | "
                        "- | - | - | yes | yes | yes | - | - | - | - | - | - |") != std::string::npos);
    CHECK(document.find("1e-2 \\|ref\\|") != std::string::npos);  // a bar would end the cell
    CHECK(page.find("output_bit_flipped") != std::string::npos);
    CHECK(page.find("a &lt;command&gt;") != std::string::npos);
    CHECK(page.find("default-src 'none'") != std::string::npos);
    for (const char* outside : {"<script", "src=", "href=\"http", "url("})
      CHECK(page.find(outside) == std::string::npos);
  }
}
