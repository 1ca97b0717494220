#include "harness/contract/place.h"

#include <doctest/doctest.h>

#include "harness/contract/error.h"

using namespace assay;

namespace {

/// Where `text` lies in a layer of T = 3, H = 4, I = 2, E = 4, K = 2; tokens take experts 1 and 0, 1 and 2, 2
/// and 3.
Place at(Field field, const char* text) {
  Routing routing;
  routing.selected = {1, 0, 1, 2, 2, 3};
  routing.gather = {1, 0, 2, 3, 4, 5};
  routing.offsets = {0, 1, 3, 5, 6};
  return find_place(field, Sizes{{4, 2, 4, 2, true}, 3}, routing, parse_place(text));
}

}  // namespace

TEST_SUITE("place") {
  TEST_CASE("any sufficient set of axes finds the element") {
    CHECK(at(Field::first_gemm, "row=2,col=3").index == 11);
    CHECK(at(Field::first_gemm, "token=1, expert=1, col=3").index == 11);
    CHECK(at(Field::first_gemm, "row 2, col 3, expert 1, token 1").index == 11);  // as reports print it
    CHECK(at(Field::first_gemm, "token=1,slot=0,col=3").index == 11);
    CHECK(at(Field::first_gemm, "expert=3,col=0").row == 5);
    CHECK(at(Field::hidden_states_unpermute, "token=0,expert=0,col=1").index == 5);  // slot 1 of token 0
    CHECK(at(Field::router_logits, "token=2,expert=3").index == 11);
    CHECK(at(Field::topk_weights, "token=2,expert=3").index == 5);
    CHECK(at(Field::hidden_states, "token=1,col=2").index == 6);
    CHECK(at(Field::gather_indices, "token=0,slot=1").index == 0);
  }

  TEST_CASE("an element of an expert's matrix is found by expert, row and column") {
    const Place down = at(Field::d_down_proj, "expert=2,row=3,col=1");  // [4, 4, 2]
    CHECK(down.index == (2 * 4 + 3) * 2 + 1);
    CHECK(down.expert == 2);
    CHECK(down.row == 3);
    CHECK(down.col == 1);
    CHECK(down.token == -1);
    CHECK(at(Field::d_gate_up_proj, "col=3, row=2, expert=1").index == (1 * 4 + 2) * 4 + 3);  // [4, 4, 4]
    CHECK(at(Field::d_gate, "expert=2,col=1").index == 9);                                    // [4, 4]
    CHECK(at(Field::d_topk_weights, "token=2,expert=3").index == 5);
    CHECK(at(Field::d_permuted_hidden_states, "token=1,slot=0,col=3").index == 11);
    CHECK_THROWS_WITH_AS(at(Field::d_down_proj, "row=4,expert=0,col=0"),
                         "d_down_proj has row 0 to 3, found row=4", UsageError);
    CHECK_THROWS_WITH_AS(at(Field::d_down_proj, "row=1,col=0"),
                         "4 places of d_down_proj fit: row=1,expert=0; row=1,expert=1; row=1,expert=2; "
                         "row=1,expert=3; say more of row, expert, col",
                         UsageError);
    CHECK_THROWS_WITH_AS(at(Field::d_down_proj, "token=0,col=0"),
                         "d_down_proj has no axis 'token'; valid: row, expert, col", UsageError);
  }

  TEST_CASE("what is missing, ambiguous, contradictory or out of range is said") {
    CHECK_THROWS_WITH_AS(at(Field::first_gemm, "token=1,expert=1"),
                         "first_gemm needs a column as well: col=0 to col=3", UsageError);
    CHECK_THROWS_WITH_AS(at(Field::first_gemm, "token=1,col=0"),
                         "2 places of first_gemm fit: row=2,token=1,slot=0,expert=1; "
                         "row=3,token=1,slot=1,expert=2; say more of row, token, slot, expert, col",
                         UsageError);
    CHECK_THROWS_WITH_AS(at(Field::first_gemm, "token=1,expert=3,col=0"),
                         "no element of first_gemm lies there; this token has row=2,token=1,slot=0,expert=1; "
                         "row=3,token=1,slot=1,expert=2",
                         UsageError);
    CHECK_THROWS_WITH_AS(at(Field::first_gemm, "row=6,col=0"), "first_gemm has row 0 to 5, found row=6",
                         UsageError);
    CHECK_THROWS_WITH_AS(at(Field::first_gemm, "row=0,col=4"), "first_gemm has columns 0 to 3, found col=4",
                         UsageError);
    CHECK_THROWS_WITH_AS(at(Field::hidden_states, "slot=0,col=0"),
                         "hidden_states has no axis 'slot'; valid: token, col", UsageError);
    for (const char* wrong : {"token", "token=", "=3", "token=x", "token=-1", "token=1=2"})
      CHECK_THROWS_AS(parse_place(wrong), UsageError);
    CHECK_THROWS_AS(parse_place("col=1,col=2"), UsageError);
  }
}
