#include "nn/online_regression.h"

#include <ATen/core/grad_mode.h>

namespace ektm {

OnlineRegression::OnlineRegression(ParameterStore& store, const std::string& name, const at::Tensor& start, const at::Tensor& open, double prior, double warmup)
    : prior_(prior), warmup_(warmup), open_(open.to(store.dtype())) {
  const int64_t labels = start.size(0), sources = start.size(1);
  start_ = store.add_buffer(name + ".start", start);
  coefficients_ = store.add_buffer(name + ".coefficients", start.clone());
  information_ = store.add_buffer(name + ".information", at::zeros({labels, sources, sources}));
  response_ = store.add_buffer(name + ".response", at::zeros({labels, sources}));
  batches_ = store.add_buffer(name + ".batches", at::zeros({1}));
}

void OnlineRegression::observe(const at::Tensor& logits, const at::Tensor& sources, const at::Tensor& labels, const at::Tensor& weight) {
  at::AutoGradMode no_grad(false);
  const at::Tensor positives = (labels * weight).sum(1, /*keepdim=*/true), rows = weight.sum(1, true);
  const at::Tensor informative = positives.gt(0).logical_and(positives.lt(rows)).to(logits.scalar_type());
  // The shift: from where sum w exp(logit) is the number of positives, below the solution, by Newton's method.
  at::Tensor shift = positives.clamp_min(1e-6).log() - (logits + weight.clamp_min(1e-30).log()).logsumexp(1, true), p, s;
  constexpr int kSteps = 6;
  for (int step = 0;; ++step) {
    p = at::sigmoid(logits + shift);
    s = weight * p * (1 - p);
    if (step == kSteps) break;
    shift = shift + ((positives - (weight * p).sum(1, true)) / s.sum(1, true).clamp_min(1e-12)).clamp(-2, 2);
  }
  const at::Tensor error = labels - p;
  s = weight * informative * (p * (1 - p) + error * error) / 2;
  const at::Tensor transposed = sources.t(), total = s.sum(1, true), mean = at::matmul(s, transposed) / total.clamp_min(1e-12);
  const at::Tensor slope = at::matmul(weight * error * informative, transposed) * open_;
  const at::Tensor squares = at::matmul(s.unsqueeze(1) * sources.unsqueeze(0), transposed) - total.unsqueeze(2) * mean.unsqueeze(2) * mean.unsqueeze(1);
  const at::Tensor information = squares * open_.unsqueeze(1) * open_.unsqueeze(2);
  // What stays closed is no unknown: it belongs to the rest of the logit.
  const at::Tensor moved = coefficients_ - start_;
  batches_ += 1;
  const double batches = batches_.item<double>(), keep = 1 - 1 / batches;
  information_.mul_(keep).add_(information);
  response_.mul_(keep).add_(at::matmul(information, moved.unsqueeze(2)).squeeze(2) + slope);
  const at::Tensor ridge = prior_ * (1 + warmup_ / batches) * at::eye(start_.size(1), at::kDouble);
  coefficients_.copy_(start_.to(at::kDouble) + at::linalg_solve(information_.to(at::kDouble) + ridge, response_.to(at::kDouble)));
}

}  // namespace ektm
