#include "reports/parting_report.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "reports/html/page_reader.h"
#include "reports/sample_parting.h"
#include "reports/sample_report.h"

using namespace assay;

TEST_SUITE("parting") {
  TEST_CASE("the terminal shows the sentence, a row per field and the routing") {
    const std::string text = render_parting_text(sample::parting(), {});
    CHECK(text.starts_with("~ a.h5 and <b>.h5\n  A and B part first at hidden_states\n"));
    CHECK(text.find("=  second_gemm       1,200            0") != std::string::npos);
    CHECK(text.find("A (A 2, B 1 element)") != std::string::npos);
    CHECK(text.find("other fields: in A silu is rounded to bf16, which B does not do") != std::string::npos);
    CHECK(
        text.find("12 of 13 tokens take the same experts, 11 in the same order, 11 with the same weights") !=
        std::string::npos);
    CHECK(text.find(
              "token 5: A alone takes 3, B alone 7, gap 0 in A's logits (a tie), gap 0.5 in B's logits") !=
          std::string::npos);
  }

  TEST_CASE("the JSON has every figure, and values that are no number as words") {
    const auto json = nlohmann::json::parse(parting_json(sample::parting(), {}));
    CHECK(json.at("schema") == "assay-diff");
    CHECK(json.at("first") == "hidden_states");
    CHECK(json.at("fields")[1].at("first").at("at").at("token") == 4);
    CHECK(json.at("fields")[1].at("first").at("b") == "NaN");
    CHECK(json.at("fields")[0].at("rms_a").is_null());
    CHECK(json.at("b").at("legal_under").size() == 2);
    CHECK(json.at("routing").at("other_experts")[0].at("gap_a") == 0.0);
  }

  TEST_CASE("the page needs no script and takes no name for markup") {
    const std::string page = render_parting_html(sample::parting(), {});
    CHECK(page.find("They part first at hidden_states") != std::string::npos);
    CHECK(page.find("<p>Other fields: in A silu is rounded") != std::string::npos);
    CHECK(page.find("&lt;b&gt;.h5") != std::string::npos);
    CHECK(page.find("<b>.h5") == std::string::npos);
    CHECK(page.find("<script") == std::string::npos);
  }

  TEST_CASE("the page has both values and float64's at the first place and where they are furthest apart") {
    const std::string page = render_parting_html(sample::parting(), {});
    CHECK(page.find("<td>first</td><td>token 4, col 7</td><td class=\"number\"><code>1.5</code></td><td "
                    "class=\"number\"><code>nan</code></td><td class=\"number\">–</td>") !=
          std::string::npos);
    CHECK(page.find("<td>furthest apart</td><td>token 5, col 8</td><td "
                    "class=\"number\"><code>1.5</code></td><td class=\"number\"><code>2.5</code></td><td "
                    "class=\"number\"><code>1.625</code></td><td>A</td>") != std::string::npos);
  }

  TEST_CASE("both are there as verify shows them, with drawings of what fails") {
    const std::string page = render_parting_html(sample::parting(), sample::report());
    CHECK(page.find("id=\"c1\"") != std::string::npos);
    CHECK(page.find("id=\"c2-second_gemm\"") != std::string::npos);
    CHECK(page_reader::unbalanced(page).empty());
  }
}
