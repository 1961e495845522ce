#include "nn/ops.h"
#include "nn/router.h"

#include <ATen/CPUGeneratorImpl.h>
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
            auto routed = ops::route(features, dot ? query : at::Tensor(), dot ? key : at::Tensor(), fixed,
                                     {similarity, normalize, to_sources, to_own, 4, {3, 0}, {1, 2, 4}});
            return routed.packet * routed.packet_again + routed.own.sin() + routed.features.sum(0).cos();
          }, plain);
        }
}

TEST_P(Ops, RouteTakesPartOfItsGradientsAndOneRootOrNone) {
  at::Tensor features = leaf({3, rows, 5}), fixed = at::rand({2, 2}, kDouble), fixed3 = at::rand({3, 3}, kDouble);
  const ops::Router one{ops::Router::Similarity::Fixed, ops::Router::Normalize::None, true, true, 3, {0}, {1, 2}};
  auto mixed = [](const at::Tensor& weights, const at::Tensor& f) { return at::einsum("ij,jbd->ibd", {weights, f}); };
  expect_same({features}, [&] { return ops::route(features, {}, {}, fixed, one).packet_again.exp(); },
              [&] { return ((features[0] + mixed(fixed, features.narrow(0, 1, 2))) / 3).exp(); });
  expect_same({features}, [&] { return ops::route(features, {}, {}, fixed, one).own.exp(); }, [&] { return features.narrow(0, 1, 2).exp(); });
  const ops::Router none{ops::Router::Similarity::Fixed, ops::Router::Normalize::None, true, true, 2, {}, {0, 1, 2}};
  expect_same({features}, [&] { return ops::route(features, {}, {}, fixed3, none).packet; }, [&] { return mixed(fixed3, features) / 2; });
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
