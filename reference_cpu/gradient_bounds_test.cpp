// Intervals of gradients: special values, draws from the operands' intervals, planted faults.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "reference_cpu/product/layer_product.h"
#include "reference_cpu/tiny_backward.h"

using namespace assay;

TEST_SUITE("gradient_bounds") {
  TEST_CASE("the slope of silu: the interval holds the GPU's gradient on every finite bf16 input") {
    std::int64_t checked = 0;
    for (const std::string_view contract : {"hf", "fused_fp32"}) {
      plain::PlainProblem p({1, 1, 1, 1, true}, 1);
      const TinyBackward g(p, contract);
      for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const Bf16 x{static_cast<std::uint16_t>(bits)};
        if (!is_finite(x)) continue;
        for (const float up : {1.0f, -0x1.8ap-3f}) {
          const float d = 0x1.54p+2f;
          const double a = to_float(x);
          const auto accepted = act_and_mul_grad<Bounded>(g.layer, {Bounded::exact(d)},
                                                          {Bounded::exact(a), Bounded::exact(up)});
          const auto got =
              act_and_mul_grad<Predicted>(g.layer, {{d, false}}, {{to_float(x), false}, {up, false}});
          for (int half = 0; half < 2; ++half) {
            const auto i = static_cast<std::size_t>(half);
            const bool inside = accepted[i].low <= got[i].value && got[i].value <= accepted[i].high;
            CHECK_MESSAGE(inside, a);
            ++checked;
          }
        }
      }
    }
    CHECK(checked == 2 * 65280 * 4);
  }

  TEST_CASE("beside 1 fp32 loses e^-a below 2^-25: both 1 and the real slope are accepted, and no more") {
    const TinyBackward g(plain::PlainProblem({1, 1, 1, 1, true}, 1), "hf");
    for (const double a : {17.5, 20.0, 30.0}) {
      const auto out =
          act_and_mul_grad<Bounded>(g.layer, {Bounded::exact(1)}, {Bounded::exact(a), Bounded::exact(1)})[0];
      const double real = 1.0 + a * std::exp(-a) - std::exp(-a);
      CHECK(out.low <= 1.0);
      CHECK(out.high >= finite_float(real));
      CHECK(out.high - out.low <= 0x1p-20);
    }
  }

  TEST_CASE("renormalised, unchosen logits: zero and HuggingFace's residues pass, a gradient does not") {
    plain::PlainProblem p({1, 1, 8, 2, true}, 1);
    TinyBackward g(p, "hf");
    g.layer.routing = get_token_counts_and_gather_indices(p.problem.config, {3, 5});
    Values<Bounded> logits;
    for (int e = 0; e < 8; ++e) logits.push_back(Bounded::exact(e == 3 || e == 5 ? 1.0 + 0.25 * e : 1.0));
    const Values<Bounded> d = {Bounded::exact(1.7), Bounded::exact(-1.6)};
    const auto out = router_grad<Bounded>(g.layer, d, logits);
    for (const std::size_t e : {0u, 1u, 2u, 4u, 6u, 7u}) {
      CHECK(out[e].ref == 0.0);
      CHECK(out[e].low <= -7.8e-8);
      CHECK(out[e].high >= 7.8e-8);
      CHECK(out[e].high < 0x1p-16);
    }
    // The chosen ones without the sum's part: g p of g = d / sum.
    const double v3 = std::exp(1.75);
    const double v5 = std::exp(2.25);
    const double w3 = v3 / (v3 + v5);
    CHECK(!(out[3].low <= 1.7 * w3 && 1.7 * w3 <= out[3].high));
    const double right = w3 * (1 - w3) * (1.7 + 1.6);
    CHECK((out[3].low <= right && right <= out[3].high));
  }

  TEST_CASE(
      "one choice, renormalised: every gradient of a logit is 0 up to residues, and d times p is refused") {
    plain::PlainProblem p({1, 1, 4, 1, true}, 1);
    TinyBackward g(p, "hf");
    g.layer.routing = get_token_counts_and_gather_indices(p.problem.config, {2});
    const Values<Bounded> logits = {Bounded::exact(0), Bounded::exact(0.5), Bounded::exact(1),
                                    Bounded::exact(-1)};
    const auto out = router_grad<Bounded>(g.layer, {Bounded::exact(1.5)}, logits);
    for (const auto& x : out) {
      CHECK(x.ref == 0.0);
      CHECK((x.low <= 0.0 && 0.0 <= x.high));
      CHECK(x.high < 0x1p-18);
    }
    const double chosen = std::exp(1.0) / (1.0 + std::exp(0.5) + std::exp(1.0) + std::exp(-1.0));
    CHECK(1.5 * chosen > out[2].high);
  }

  TEST_CASE("float32 gradients of logits: their products are rounded before they are added") {
    // Two terms that all but cancel: the sum is far smaller than what the products lose.
    std::mt19937 engine(5);
    TinyBackward g(plain::eighths({1, 1, 2, 1, true}, 1, 3), "fp32_logits");
    g.layer.declared = g.layer.accumulators = every_product(parse_accumulator("fp32_pairwise"));
    const auto gate = g.p.problem.gate.as<Bf16>();
    gate[0] = round_to_bf16(1.0078125);
    gate[1] = round_to_bf16(-1.015625);
    std::int64_t lost = 0;
    for (int draw = 0; draw < 100; ++draw) {
      const float first = 1.0f + static_cast<float>(engine() % 0x800000) * 0x1p-23f;
      const float second = first * 1.0078125f / 1.015625f;
      const Values<Bounded> exact = {Bounded::exact(first), Bounded::exact(second)};
      const Values<Predicted> fp32 = {{first, false}, {second, false}};
      const Interval accepted = product_values<Bounded>(ProductId::router_dx, g.layer, &exact)[0];
      const double found = product_values<Predicted>(ProductId::router_dx, g.layer, &fp32)[0].value;
      CHECK((accepted.low <= found && found <= accepted.high));
      lost += std::fabs(found - accepted.ref) > 0x1p-24 * std::fabs(accepted.ref);
    }
    CHECK(lost > 50);  // an order's running bound, which counts the addition alone, refuses them
  }

  TEST_CASE("draws from the operands' intervals, in fp32 and two ways, stay inside") {
    std::mt19937_64 engine(7);
    const auto uniform = [&](double low, double high) {
      return low + (high - low) * static_cast<double>(engine() >> 11) * 0x1p-53;
    };
    const auto wide = [&](double scale, double relative) {
      const double x = uniform(-scale, scale);
      const double d = std::fabs(x) * relative;
      return Interval(x, x - d, x + d);
    };
    const auto drawn = [&](const Interval& x) {
      const int end = static_cast<int>(engine() % 4);
      return static_cast<float>(end == 0 ? x.low : end == 1 ? x.high : uniform(x.low, x.high));
    };
    std::int64_t outside = 0;
    std::int64_t draws = 0;
    const auto look = [&](const Interval& x, double value) {
      // What was drawn was rounded to float, which the interval of a real operand does not hold.
      const double slack = 0x1p-23 * std::max(std::fabs(x.low), std::fabs(x.high)) + 0x1p-126;
      ++draws;
      outside += !(x.low - slack <= value && value <= x.high + slack);
    };
    for (int round = 0; round < 3000; ++round) {
      const bool renormalised = round % 2 == 0;
      const std::int64_t experts = 2 + static_cast<std::int64_t>(engine() % 9);
      const std::int64_t top_k =
          1 + static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(experts));
      plain::PlainProblem p({1, 1, experts, top_k, renormalised}, 1);
      TinyBackward g(p, "hf");
      std::vector<std::int32_t> chosen(static_cast<std::size_t>(top_k));
      for (std::size_t j = 0; j < chosen.size(); ++j) chosen[j] = static_cast<std::int32_t>(j);
      g.layer.routing = get_token_counts_and_gather_indices(g.p.problem.config, chosen);
      const double relative = round % 3 == 0 ? 0.0 : 0x1p-9;
      Values<Bounded> logits;
      Values<Bounded> d;
      for (std::int64_t e = 0; e < experts; ++e) logits.push_back(wide(6.0, relative));
      for (std::int64_t j = 0; j < top_k; ++j) d.push_back(wide(2.0, relative));
      const auto accepted = router_grad<Bounded>(g.layer, d, logits);
      for (int draw = 0; draw < 8; ++draw) {
        Values<Predicted> l;
        Values<Predicted> dw;
        for (const auto& x : logits) l.push_back({drawn(x), false});
        for (const auto& x : d) dw.push_back({drawn(x), false});
        const auto torch = router_grad<Predicted>(g.layer, dw, l);
        // In one go, from the weights: w (d - sum w d).
        float top = l[0].value;
        float sum = 0.0f;
        float mean = 0.0f;
        for (const auto& x : l) top = std::max(top, x.value);
        const auto members = renormalised ? dw.size() : l.size();
        for (std::size_t e = 0; e < members; ++e) sum += std::exp(l[e].value - top);
        for (std::size_t j = 0; j < dw.size(); ++j) mean += std::exp(l[j].value - top) / sum * dw[j].value;
        for (std::size_t e = 0; e < l.size(); ++e) {
          look(accepted[e], torch[e].value);
          const float w = e < members ? std::exp(l[e].value - top) / sum : 0.0f;
          look(accepted[e], w * ((e < dw.size() ? dw[e].value : 0.0f) - mean));
        }
      }
      // SwiGLU: the gate half in two ways.
      const Interval hidden = wide(3.0, relative);
      const Interval gate = wide(12.0, relative);
      const Interval up = wide(2.0, relative);
      g.use("fused_fp32");
      g.layer.routing.gather = {0};  // one row
      const auto first = act_and_mul_grad<Bounded>(g.layer, {hidden}, {gate, up});
      for (int draw = 0; draw < 8; ++draw) {
        const float dh = drawn(hidden);
        const float a = drawn(gate);
        const float b = drawn(up);
        const auto torch = act_and_mul_grad<Predicted>(g.layer, {{dh, false}}, {{a, false}, {b, false}});
        look(first[0], torch[0].value);
        look(first[1], torch[1].value);
        const float s = 1.0f / (1.0f + std::exp(-a));
        const float silu = a * s;
        look(first[0], dh * b * (s + silu * (1.0f - s)));
        look(first[1], dh * silu);
      }
    }
    CHECK(draws > 100000);
    CHECK(outside == 0);
  }

  TEST_CASE(
      "d_topk_weights from the activation: rounded, fused or in any order, draws stay inside, and no term is "
      "spare") {
    std::mt19937_64 engine(12);
    std::int64_t outside = 0;
    std::int64_t draws = 0;
    std::int64_t caught = 0;
    for (const std::int64_t width : {1, 7, 64, 500}) {
      const TinyBackward g(plain::PlainProblem({1, width, 1, 1, true}, 1), "fused_fp32");
      for (const double half : {0.0, 0x1p-20}) {
        Values<Bounded> products;
        Values<Bounded> first;
        Values<Predicted> z;
        for (std::int64_t i = 0; i < width; ++i) {
          const auto p = static_cast<float>(static_cast<double>(engine() % 4001) / 1000 - 2.0003);
          products.push_back({p, p - half * std::fabs(p), p + half * std::fabs(p)});
        }
        for (std::int64_t i = 0; i < 2 * width; ++i) {
          const float x = to_float(round_to_bf16(static_cast<double>(engine() % 4001) / 1000 - 2));
          first.push_back(Bounded::exact(x));
          z.push_back({x, false});
        }
        const Values<Predicted> a = recomputed_activation<Predicted>(g.layer, z);
        const Interval accepted = activation_dots<Bounded>(g.layer, products, first)[0];
        const auto look = [&](double sum) {
          ++draws;
          outside += !(accepted.low <= sum && sum <= accepted.high);
        };
        for (int draw = 0; draw < 200; ++draw) {
          Values<Predicted> drawn;
          for (const Interval& x : products) {
            const auto pick = engine() % 3;
            const float p = static_cast<float>(pick == 0 ? x.low : pick == 1 ? x.high : x.ref);
            drawn.push_back({x.low <= p && p <= x.high ? p : static_cast<float>(x.ref), false});
          }
          look(activation_dots<Predicted>(g.layer, drawn, z)[0].value);
          std::vector<std::size_t> order(a.size());
          for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
          std::ranges::shuffle(order, engine);
          float fused = 0.0f;
          float rounded = 0.0f;
          double without = 0.0;
          for (std::size_t i = 0; i < order.size(); ++i) {
            const std::size_t at = order[i];
            fused = std::fma(a[at].value, drawn[at].value, fused);
            rounded += a[at].value * drawn[at].value;
            if (i > 0) without += static_cast<double>(a[at].value) * drawn[at].value;
          }
          look(fused);
          look(rounded);
          caught += !(accepted.low <= without && without <= accepted.high);
        }
      }
    }
    CHECK(draws == 4 * 2 * 200 * 3);
    CHECK(outside == 0);
    CHECK(caught > 4 * 2 * 200 * 9 / 10);  // one term in 500 may be small
  }

  TEST_CASE("d_topk_weights: sums in random orders, of draws from the rows' intervals, stay inside") {
    std::mt19937_64 engine(11);
    std::int64_t outside = 0;
    std::int64_t draws = 0;
    for (const std::string_view contract : {"hf", "fused_fp32"})
      for (const std::int64_t width : {1, 7, 64, 500}) {
        plain::PlainProblem p({width, 1, 1, 1, true}, 1);
        for (std::int64_t h = 0; h < width; ++h)
          p.d_hidden_states(0, h) = static_cast<double>(engine() % 255) / 128 - 1;
        const TinyBackward g(p, contract);
        const auto d = g.p.problem.output_gradient.as<Bf16>();
        for (const int halves : {0, 1}) {
          Values<Bounded> rows;
          for (std::int64_t h = 0; h < width; ++h) {
            const double y = to_float(round_to_bf16(static_cast<double>(engine() % 4001) / 1000 - 2));
            rows.push_back({y, y - halves * std::fabs(y) * 0x1p-8, y + halves * std::fabs(y) * 0x1p-8});
          }
          const Interval accepted = row_dots<Bounded>(g.layer, rows)[0];
          for (int draw = 0; draw < 200; ++draw) {
            std::vector<float> terms;
            for (std::size_t h = 0; h < rows.size(); ++h) {
              const auto pick = engine() % 3;
              const float y = to_float(round_to_bf16(pick == 0   ? rows[h].low
                                                     : pick == 1 ? rows[h].high
                                                                 : rows[h].ref));
              if (!(rows[h].low <= y && y <= rows[h].high)) continue;
              const float q = to_float(d[h]) * y;
              terms.push_back(contract == "hf" ? to_float(round_to_bf16(q)) : q);
            }
            if (terms.size() < rows.size()) continue;
            std::ranges::shuffle(terms, engine);
            float sum = 0.0f;
            for (const float q : terms) sum += q;
            ++draws;
            outside += !(accepted.low <= sum && sum <= accepted.high);
          }
        }
      }
    CHECK(draws > 500);
    CHECK(outside == 0);
  }

  TEST_CASE("a fault planted in a gradient's values or products leaves its interval") {
    const TinyBackward sound(plain::eighths({16, 12, 4, 2, true}, 9, 5), "hf");
    for (const FieldRow& field : kFields) {
      if (field.group != Group::Backward) continue;
      Evaluator<Bounded> bounds(sound.layer, {}, everything());
      const auto accepted = bounds.value(field.id);
      const auto outside = [&](const Fault& fault) {
        Layer faulty = sound.layer;
        faulty.fault = fault;
        Evaluator<Predicted> walk(faulty, {}, everything());
        const auto got = walk.value(field.id);
        std::int64_t count = 0;
        for (std::size_t i = 0; i < got.size(); ++i)
          count += !(accepted[i].low <= got[i].value && got[i].value <= accepted[i].high);
        return count;
      };
      CAPTURE(field.name);
      CHECK(outside({}) == 0);
      CHECK(outside({.kind = FaultKind::ScaleValues, .field = field.id, .scale = 0x1p-5}) > 0);
      CHECK(outside({.kind = FaultKind::NextRow, .field = field.id}) > 0);
      CHECK(outside({.kind = FaultKind::Poison, .field = field.id, .where = Where::MiddleElement}) == 1);
    }
    for (const Field field : {Field::d_intermediate, Field::d_permuted_hidden_states}) {
      Evaluator<Bounded> bounds(sound.layer, {}, everything());
      const auto accepted = bounds.value(field);
      Layer faulty = sound.layer;
      faulty.fault = {.kind = FaultKind::DropLastK, .field = field, .amount = 1};
      const auto got = Evaluator<Predicted>(faulty, {}, everything()).value(field);
      std::int64_t count = 0;
      for (std::size_t i = 0; i < got.size(); ++i)
        count += !(accepted[i].low <= got[i].value && got[i].value <= accepted[i].high);
      CHECK(count > 0);
    }
  }
}
