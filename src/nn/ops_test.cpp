#include "nn/ops.h"
#include "nn/transfer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/threads.h"
#include "tests/support/same_gradients.h"

namespace ektm {
namespace {

struct Ops : testing::TestWithParam<std::pair<int, int64_t>> {  // threads, rows
  int64_t rows = GetParam().second;
  Context context;
  void SetUp() override {
    at::manual_seed(3);
    set_threads(GetParam().first);
  }
  void TearDown() override { set_threads(1); }
};

TEST_P(Ops, FanOut) {
  at::Tensor x = leaf({rows, 5}), w = leaf({5, 3, 4}), b = leaf({3, 4});
  auto plain = [&] { return (at::einsum("bi,ieo->ebo", {x, w}) + b.unsqueeze(1)).relu(); };
  expect_same({x, w, b}, [&] { return ops::fan_out(x, w, b, true, 0, context); }, plain);
  expect_same({x, w}, [&] { return ops::fan_out(x, w, {}, false, 0, context); }, [&] { return at::einsum("bi,ieo->ebo", {x, w}); });
  at::Tensor wide = leaf({rows, 10}), skipping = wide.as_strided({rows, 5}, {10, 1}, 2);
  expect_same({wide, w, b}, [&] { return ops::fan_out(skipping, w, b, false, 0, context); },
              [&] { return at::einsum("bi,ieo->ebo", {skipping, w}) + b.unsqueeze(1); });
}

TEST_P(Ops, Stacked) {
  at::Tensor x = leaf({3, rows, 5}), x2 = leaf({3, rows, 2}), w = leaf({3, 7, 4}), b = leaf({3, 1, 4});
  expect_same({x, x2, w, b}, [&] { return ops::stacked(x, x2, w, b, true, 0, context); },
              [&] { return at::baddbmm(b, at::cat({x, x2}, 2), w).relu(); });
  // Each input for two maps; inputs with the rows outside, the maps outside, and one input for all.
  at::Tensor twice = leaf({6, 5, 4});
  auto repeated = [&](const at::Tensor& input) { return at::bmm(input.repeat_interleave(2, 0), twice); };
  expect_same({x, twice}, [&] { return ops::stacked(x, {}, twice, {}, false, 0, context); }, [&] { return repeated(x); });
  at::Tensor by_row = leaf({rows, 3, 5});
  expect_same({by_row, twice}, [&] { return ops::stacked(by_row.transpose(0, 1), {}, twice, {}, false, 0, context); },
              [&] { return repeated(by_row.transpose(0, 1)); });
  at::Tensor one = leaf({1, rows, 5}), w5 = leaf({3, 5, 4});
  expect_same({one, w5}, [&] { return ops::stacked(one.expand({3, -1, -1}), {}, w5, {}, false, 0, context); },
              [&] { return at::bmm(one.expand({3, -1, -1}), w5); });
}

TEST_P(Ops, SoftmaxMixTakesWhatTheIndexNames) {
  at::Tensor logits = leaf({2, rows, 3}), a = leaf({2, rows, 37}), b = leaf({3, rows, 37});
  const std::vector<int32_t> index{0, 4, 2, 1, 1, 3};
  expect_same({logits, a, b}, [&] { return ops::softmax_mix(logits, {a, b}, index); }, [&] {
    at::Tensor all = at::cat({a, b}), gates = at::softmax(logits, 2);
    std::vector<at::Tensor> mixed;
    for (int64_t k = 0; k < 2; ++k) {
      at::Tensor sum = at::zeros({rows, 37}, kDouble);
      for (int64_t j = 0; j < 3; ++j) sum = sum + gates[k].select(1, j).unsqueeze(1) * all[index[k * 3 + j]];
      mixed.push_back(sum);
    }
    return at::stack(mixed);
  });
  // Behind a stop-gradient: task 0's second input, task 1's first and last.
  expect_same({logits, a, b}, [&] { return ops::softmax_mix(logits, {a, b}, index, {1, 0, 1, 0, 1, 0}); }, [&] {
    at::Tensor all = at::cat({a, b}), fixed = all.detach(), gates = at::softmax(logits, 2);
    return at::stack({at::einsum("bj,jbh->bh", {gates[0], at::stack({all[0], fixed[4], all[2]})}),
                      at::einsum("bj,jbh->bh", {gates[1], at::stack({fixed[1], all[1], fixed[3]})})});
  });
}

TEST_P(Ops, Heads) {
  at::Tensor x = leaf({3, rows, 11}), w = leaf({3, 11, 1}), b = leaf({3, 1, 1}), message = leaf({rows, 3, 11});
  expect_same({x, w, b}, [&] { return ops::heads(x, w, b); }, [&] { return at::baddbmm(b, x, w).squeeze(2); });
  expect_same({x, message, w}, [&] { return ops::gated_heads(x, message.transpose(0, 1), w); },
              [&] { return at::bmm(at::sigmoid(x) * message.transpose(0, 1), w).squeeze(2); });
}

TEST_P(Ops, RouteEqualsItsFormula) {
  using Router = ops::Router;
  // Roots and tasks in any order among the features; more than one root.
  at::Tensor features = leaf({5, rows, 5}), query = leaf({5, 2}), key = leaf({5, 2}), fixed = at::rand({3, 3}, kDouble);
  for (auto similarity : {Router::Similarity::Dot, Router::Similarity::Cosine, Router::Similarity::Fixed})
    for (auto normalize : {Router::Normalize::Softmax, Router::Normalize::Sigmoid, Router::Normalize::None})
      for (bool to_sources : {false, true})
        for (bool to_own : {false, true}) {
          const bool dot = similarity == Router::Similarity::Dot;
          auto plain = [&] {
            at::Tensor f = features.index_select(0, at::tensor({1, 2, 4})), roots = features[3] + features[0];
            if (!to_sources) roots = roots.detach();
            std::vector<at::Tensor> packets;
            for (int64_t i = 0; i < 3; ++i) {
              at::Tensor own = to_own ? f[i] : f[i].detach();
              std::vector<at::Tensor> sources, scores;
              for (int64_t j = 0; j < 3; ++j) sources.push_back(i == j ? own : to_sources ? f[j] : f[j].detach());
              for (int64_t j = 0; j < 3; ++j)
                scores.push_back(dot ? (at::mm(own, query) * at::mm(sources[j], key)).sum(1) / std::sqrt(2.0)
                                 : similarity == Router::Similarity::Cosine ? at::cosine_similarity(own, sources[j], 1, 1e-8)
                                                                            : fixed[i][j].expand({rows}));
              at::Tensor s = at::stack(scores, 1);
              if (normalize == Router::Normalize::Softmax) s = at::softmax(s, 1);
              if (normalize == Router::Normalize::Sigmoid) s = at::sigmoid(s);
              at::Tensor sum = roots;
              for (int64_t j = 0; j < 3; ++j) sum = sum + s.select(1, j).unsqueeze(1) * sources[j];
              packets.push_back(sum / 4);
            }
            at::Tensor packet = at::stack(packets);
            return packet * packet + f.sin() + features.sum(0).cos();
          };
          SCOPED_TRACE(testing::Message() << int(similarity) << int(normalize) << to_sources << to_own);
          expect_same({features, query, key}, [&] {
            auto routed = ops::route(features, {similarity, normalize, to_sources, to_own, 4, {3, 0}, {1, 2, 4}, dot ? query : at::Tensor(), dot ? key : at::Tensor(), fixed});
            return routed.packet * routed.packet_again + routed.own.sin() + routed.features.sum(0).cos();
          }, plain);
        }
}

TEST_P(Ops, RouteTakesPartOfItsGradientsAndOneRootOrNone) {
  at::Tensor features = leaf({3, rows, 5}), fixed = at::rand({2, 2}, kDouble), fixed3 = at::rand({3, 3}, kDouble);
  const ops::Router one{ops::Router::Similarity::Fixed, ops::Router::Normalize::None, true, true, 3, {0}, {1, 2}, {}, {}, fixed};
  auto mixed = [](const at::Tensor& weights, const at::Tensor& f) { return at::einsum("ij,jbd->ibd", {weights, f}); };
  expect_same({features}, [&] { return ops::route(features, one).packet_again.exp(); },
              [&] { return ((features[0] + mixed(fixed, features.narrow(0, 1, 2))) / 3).exp(); });
  expect_same({features}, [&] { return ops::route(features, one).own.exp(); }, [&] { return features.narrow(0, 1, 2).exp(); });
  const ops::Router none{ops::Router::Similarity::Fixed, ops::Router::Normalize::None, true, true, 2, {}, {0, 1, 2}, {}, {}, fixed3};
  expect_same({features}, [&] { return ops::route(features, none).packet; }, [&] { return mixed(fixed3, features) / 2; });
}

// The router and the transmitters in one go, as operation by operation: features, logits and the gradients of everything.
TEST_P(Ops, TransferEqualsItsParts) {
  using Router = ops::Router;
  at::Tensor features = leaf({rows, 5, 6}), query = leaf({6, 2}), key = leaf({6, 2}), fixed = at::rand({3, 3}, kDouble);
  const ops::Transmitter t{leaf({3, 6, 4}), leaf({3, 1, 4}), leaf({3, 4, 6}), leaf({3, 1, 6}), leaf({3, 12, 6}), leaf({3, 1, 6}), leaf({3, 6, 1}), 0.4};
  const std::vector<at::Tensor> leaves{features, query, key, t.hidden_weight, t.hidden_bias, t.out_weight, t.out_bias, t.gate_weight, t.gate_bias, t.head};
  const at::Tensor f = features.transpose(0, 1);
  auto seeded = [&] { context.generator = at::make_generator<at::CPUGeneratorImpl>(7); };
  for (bool training : {false, true})
    for (auto similarity : {Router::Similarity::Dot, Router::Similarity::Cosine, Router::Similarity::Fixed})
      for (bool to_sources : {false, true})
        for (bool to_own : {false, true}) {
          const bool dot = similarity == Router::Similarity::Dot;
          const Router router{similarity, Router::Normalize::Softmax, to_sources, to_own, 4, {3}, {1, 2, 4}, dot ? query : at::Tensor(), dot ? key : at::Tensor(), fixed};
          context.training = training;
          auto whole = [&] {
            seeded();
            const ops::Transferred moved = ops::transfer(f, router, t, context);
            return moved.logits.sin() + moved.features.sum(0).sum(1).cos();
          };
          auto parts = [&] {
            seeded();
            const ops::Routed routed = ops::route(f, router);
            const at::Tensor hidden = ops::stacked(routed.packet, {}, t.hidden_weight, t.hidden_bias, true, t.dropout, context);
            const at::Tensor message = ops::stacked(hidden, {}, t.out_weight, t.out_bias, false, 0, context);
            const at::Tensor gate = ops::stacked(to_own ? routed.own : routed.own.detach(), routed.packet_again, t.gate_weight, t.gate_bias, false, 0, context);
            return ops::gated_heads(gate, message, t.head).sin() + routed.features.sum(0).sum(1).cos();
          };
          SCOPED_TRACE(testing::Message() << training << int(similarity) << to_sources << to_own);
          std::vector<at::Tensor> trained = leaves;
          if (!dot) trained.erase(trained.begin() + 1, trained.begin() + 3);
          expect_same(trained, whole, parts);
        }
  // Without gradients, when nothing is kept: the same numbers. And where no gradient of the logits arrives.
  const Router router{Router::Similarity::Dot, Router::Normalize::Softmax, false, true, 4, {3}, {1, 2, 4}, query, key, {}};
  auto logits = [&] { return seeded(), ops::transfer(f, router, t, context).logits; };
  const at::Tensor kept = logits();
  {
    at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(logits(), kept));
  }
  expect_same({features}, [&] { return ops::transfer(f, router, t, context).features.sin(); }, [&] { return f.sin(); });
}

// The gradient passes exactly where the result was kept, with the same factor.
TEST_P(Ops, DropoutBackwardDropsWhatForwardDropped) {
  context.training = true;
  context.generator = at::make_generator<at::CPUGeneratorImpl>(7);
  at::Tensor x = at::rand({4, rows, 9}, kDouble).requires_grad_(true);
  at::Tensor y = ops::dropout(x, 0.5, context);
  y.backward(at::ones_like(y).transpose(0, 2).contiguous().transpose(0, 2));
  EXPECT_TRUE(at::allclose(x.grad() * x, y, 1e-12, 0));

  at::Tensor w = at::eye(9, kDouble).view({1, 9, 9}).repeat({4, 1, 1}), b = at::zeros({4, 1, 9}, kDouble);
  x.mutable_grad() = at::Tensor();
  at::Tensor fused = ops::stacked(x, {}, w, b, true, 0.5, context);
  fused.backward(at::ones_like(fused));
  EXPECT_TRUE(at::allclose(x.grad() * x, fused, 1e-12, 0));
  if (rows > 100) {
    EXPECT_NEAR((fused > 0).to(at::kDouble).mean().item<double>(), 0.5, 0.05);
    EXPECT_FALSE(at::equal(fused > 0, y > 0));  // another draw
  }
}

INSTANTIATE_TEST_SUITE_P(ThreadsAndRows, Ops, testing::Values(std::pair{1, 1}, std::pair{1, 40}, std::pair{3, 2500}));

TEST(Ops, FloatSoftmaxIsAccurate) {
  at::Tensor logits = at::linspace(-100, 100, 4001).view({1, 1, 4001}), ones = at::eye(4001).unsqueeze(1);
  std::vector<int32_t> index(4001);
  for (int32_t i = 0; i < 4001; ++i) index[i] = i;
  at::Tensor gates = ops::softmax_mix(logits, {ones}, index).flatten();
  at::Tensor expected = at::softmax(logits.to(at::kDouble), 2).flatten();
  at::Tensor error = (gates.to(at::kDouble) - expected).abs() / expected;
  EXPECT_LT(error.narrow(0, 2401, 1600).max().item<double>(), 1e-5);  // down to e^-80 of the largest
  EXPECT_LT((gates - expected).abs().max().item<double>(), 1e-7);
  at::Tensor bad = at::full({1, 1, 2}, std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(at::isnan(ops::softmax_mix(bad, {at::ones({2, 1, 4})}, {0, 1})).all().item<bool>());
}

}  // namespace
}  // namespace ektm
