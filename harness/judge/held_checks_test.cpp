// Fields held by hashes, beside a reference whose answers are written down.
#include "harness/judge/held_checks.h"

#include <doctest/doctest.h>

#include "harness/judge/fake_reference.h"

using namespace assay;

namespace {

constexpr Field kField = Field::d_down_proj;  // [E, H, I]

/// A hash that can be read: the words, one after the other.
std::string words(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte b : bytes) text += std::to_string(std::to_integer<int>(b)) + " ";
  return text;
}

/// Two experts' matrices of 2 x 2, of which the file stores the second one's first row.
struct HeldCase {
  WrittenAnswers answers;
  HeldField held{kField, DType::BFloat16, {2, 2, 2}, {}, {{2, 1}}, Tensor(DType::BFloat16, {1, 2})};
  std::vector<double> values = {1, 2, 3, 4, 5, 6, 7, 8};

  HeldCase() {
    answers.sizes = {{2, 2, 2, 1, true}, 1};
    answers.routing = {{0}, {1, 0}, {0, 1, 1}, {0}};
    answers.expect(kField, values, 0.01);
    answers.predict(kField, values);
    for (int expert = 0; expert < 2; ++expert) {
      std::vector<Bf16> bits;
      for (int i = 0; i < 4; ++i)
        bits.push_back(round_to_bf16(values[static_cast<std::size_t>(4 * expert + i)]));
      held.sha256.push_back(words(std::as_bytes(std::span(bits))));
    }
    held.rows.as<Bf16>()[0] = round_to_bf16(5.0);
    held.rows.as<Bf16>()[1] = round_to_bf16(6.0);
  }
  HeldChecks checks() {
    FakeReference reference(answers, true);
    return check_held({kField, answers.sizes, &answers.routing}, held, reference, Mode::Isolated, true,
                      words);
  }
};

}  // namespace

TEST_SUITE("held_checks") {
  TEST_CASE("equal hashes are all bits as predicted, and stored rows are held to their intervals") {
    HeldCase e;
    const HeldChecks checks = e.checks();
    CHECK(checks.bits.elements == 8);
    CHECK(checks.bits.as_predicted == 8);
    CHECK(checks.judgement.verdict == Verdict::Passed);
    CHECK(checks.judgement.elements == 2);
    CHECK(checks.notes.empty());
  }

  TEST_CASE("another hash is named by its expert") {
    HeldCase e;
    e.held.sha256[1] = "another";
    const HeldChecks checks = e.checks();
    CHECK(checks.bits.as_predicted == 4);
    CHECK(checks.bits.differing == 1);
    REQUIRE(checks.notes.size() == 1);
    CHECK(checks.notes.front() ==
          "expert 1 has another hash than the predicted bits: which elements differ, hashes do not say");
  }

  TEST_CASE("an expert with an undetermined element is undetermined, whatever its hash") {
    HeldCase e;
    e.answers.bits[{kField, Mode::Isolated}][5].undetermined = true;
    e.held.sha256[1] = "another";
    const HeldChecks checks = e.checks();
    CHECK(checks.bits.undetermined == 4);
    CHECK(checks.bits.differing == 0);
    CHECK(checks.notes == std::vector<std::string>{"expert 1 is undetermined: no hash is predicted"});
  }

  TEST_CASE("a stored row outside its interval is rejected, and what differs in it is counted") {
    HeldCase e;
    e.held.rows.as<Bf16>()[0] = round_to_bf16(9.0);
    e.held.rows.as<Bf16>()[1] = round_to_bf16(9.0);
    e.held.sha256[1] = "another";
    const HeldChecks checks = e.checks();
    CHECK(checks.judgement.verdict == Verdict::Failed);
    CHECK(checks.judgement.rejected == 2);
    CHECK(checks.bits.differing == 2);
  }

  TEST_CASE("words say what bits say, and are not asked for where rows are stored or bits undetermined") {
    for (const bool undetermined : {false, true})
      for (const bool another : {false, true}) {
        HeldCase e;
        e.answers.bits[{kField, Mode::Isolated}][1].undetermined = undetermined;
        if (another) e.held.sha256[0] = "another";
        const HeldChecks by_bits = e.checks();
        e.answers.words_at_once = true;
        const HeldChecks by_words = e.checks();
        CHECK(by_words.bits.as_predicted == by_bits.bits.as_predicted);
        CHECK(by_words.bits.undetermined == by_bits.bits.undetermined);
        CHECK(by_words.bits.differing == by_bits.bits.differing);
        CHECK(by_words.notes == by_bits.notes);
        CHECK(by_words.judgement.elements == 2);
      }
  }

  TEST_CASE("experts of zeros are hashed once") {
    HeldCase e;
    e.held.stored.clear();
    e.held.rows = Tensor(DType::BFloat16, {0, 2});
    e.answers.predict(kField, std::vector<double>(8, 0.0));
    int hashed = 0;
    const auto count = [&](std::span<const std::byte> bytes) { return ++hashed, words(bytes); };
    e.held.sha256 = {words(std::vector<std::byte>(8)), "another"};
    FakeReference reference(e.answers, true);
    const auto checks = check_held({kField, e.answers.sizes, &e.answers.routing}, e.held, reference,
                                   Mode::Isolated, true, count);
    CHECK(hashed == 1);
    CHECK(checks.bits.as_predicted == 4);
    CHECK(checks.bits.differing == 1);
  }

  TEST_CASE("hashes of another shape or type cannot be judged") {
    HeldCase e;
    CHECK_FALSE(unusable(e.held, e.answers.sizes, DType::BFloat16));
    e.held.shape = {2, 4, 1};
    CHECK(unusable(e.held, e.answers.sizes, DType::BFloat16)->verdict == Verdict::WrongShape);
    e.held.shape = {2, 2, 2};
    e.held.dtype = DType::Float64;
    CHECK(unusable(e.held, e.answers.sizes, DType::BFloat16)->verdict == Verdict::WrongDtype);
  }
}
