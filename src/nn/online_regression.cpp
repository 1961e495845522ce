#include "nn/online_regression.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace ektm {
namespace {

// Moves x [K] from the free solution of A x = r to the smallest of x'Ax / 2 - r'x with low <= x <= high, A [K,K] positive definite: coordinate by coordinate.
void bound(const double* a, const double* r, const double* low, const double* high, double* x, int64_t size) {
  bool inside = true;
  for (int64_t j = 0; j < size; ++j) inside = inside && low[j] <= x[j] && x[j] <= high[j];
  if (inside) return;
  for (int64_t j = 0; j < size; ++j) x[j] = std::clamp(x[j], low[j], high[j]);
  constexpr int kSweeps = 1000;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double change = 0, largest = 0;
    for (int64_t j = 0; j < size; ++j) {
      double rest = r[j];
      for (int64_t k = 0; k < size; ++k) rest -= k == j ? 0 : a[j * size + k] * x[k];
      const double to = std::clamp(rest / a[j * size + j], low[j], high[j]);
      change = std::max(change, std::abs(to - x[j]));
      largest = std::max(largest, std::abs(to));
      x[j] = to;
    }
    if (change <= 1e-12 * largest) return;
  }
}

}  // namespace

OnlineRegression::OnlineRegression(ParameterStore& store, const std::string& name, const at::Tensor& start, const at::Tensor& open, const at::Tensor& lower,
                                   const at::Tensor& upper, double prior, double warmup)
    : prior_(prior), warmup_(warmup), open_(open.to(store.dtype())), lower_((lower - start).to(at::kDouble)), upper_((upper - start).to(at::kDouble)) {
  const int64_t labels = start.size(0), sources = start.size(1);
  start_ = store.add_buffer(name + ".start", start);
  coefficients_ = store.add_buffer(name + ".coefficients", start.clone());
  information_ = store.add_buffer(name + ".information", at::zeros({labels, sources, sources}));
  response_ = store.add_buffer(name + ".response", at::zeros({labels, sources}));
  scale_ = store.add_buffer(name + ".scale", at::zeros({labels, sources}));
  batches_ = store.add_buffer(name + ".batches", at::zeros({1}));
}

void OnlineRegression::observe(const at::Tensor& logits, const at::Tensor& sources, const at::Tensor& labels, const at::Tensor& weight) {
  at::AutoGradMode no_grad(false);
  const at::Tensor positives = (labels * weight).sum(1, /*keepdim=*/true), rows = weight.sum(1, true);
  const at::Tensor informative = positives.gt(0).logical_and(positives.lt(rows)).to(logits.scalar_type());
  // The shift: from where sum w exp(logit) is the number of positives, below the solution, by Newton's method. Six steps are enough where no few logits
  // outweigh all others; where they do, more of them, halved where they leave what the solution is known to lie in.
  at::Tensor shift = positives.clamp_min(1e-6).log() - (logits + weight.clamp_min(1e-30).log()).logsumexp(1, true), p, s;
  at::Tensor below = shift, above = at::full_like(shift, std::numeric_limits<double>::infinity());
  constexpr int kSteps = 6, kMostSteps = 100;
  for (int step = 0;; ++step) {
    p = at::sigmoid(logits + shift);
    s = weight * p * (1 - p);
    const at::Tensor missing = positives - (weight * p).sum(1, true);
    if (step == kMostSteps || (step >= kSteps && !(informative * missing.abs()).gt(1e-3 * positives).any().item<bool>())) break;
    below = at::where(missing > 0, shift, below), above = at::where(missing < 0, shift, above);
    const at::Tensor newton = shift + (missing / s.sum(1, true).clamp_min(1e-12)).clamp(-2, 2);
    shift = step < kSteps ? newton : at::where(newton < above, at::where(newton > below, newton, (below + above) / 2), (below + above) / 2);
  }
  const at::Tensor error = labels - p;
  s = weight * informative * (p * (1 - p) + error * error) / 2;
  // About their own means: a source that is nearly constant would cancel otherwise. The errors sum to 0, so the slope is the same.
  const at::Tensor about = sources - sources.mean(1, true), transposed = about.t(), total = s.sum(1, true), mean = at::matmul(s, transposed) / total.clamp_min(1e-12);
  const at::Tensor slope = at::matmul(weight * error * informative, transposed) * open_;
  const at::Tensor squares = at::matmul(s.unsqueeze(1) * about.unsqueeze(0), transposed) - total.unsqueeze(2) * mean.unsqueeze(2) * mean.unsqueeze(1);
  // Closed coefficients are no unknowns: they belong to the rest of the logit.
  const at::Tensor now = squares.diagonal(0, 1, 2).clamp_min(0) / total.clamp_min(1e-12);
  scale_.copy_(at::where(informative > 0, at::where(scale_ > 0, 0.9 * scale_ + 0.1 * now, now), scale_));
  const at::Tensor deviation = scale_.clamp_min(1).sqrt();
  const at::Tensor information = squares * open_.unsqueeze(1) * open_.unsqueeze(2) / (deviation.unsqueeze(1) * deviation.unsqueeze(2));
  const at::Tensor moved = (coefficients_ - start_) * deviation;
  batches_ += 1;
  const double batches = batches_.item<double>(), keep = 1 - 1 / batches;
  information_.mul_(keep).add_(information);
  response_.mul_(keep).add_(at::matmul(information, moved.unsqueeze(2)).squeeze(2) + slope / deviation);
  const at::Tensor ridge = prior_ * (1 + warmup_ / batches) * at::eye(start_.size(1), at::kDouble);
  const at::Tensor system = (information_.to(at::kDouble) + ridge).contiguous(), right = response_.to(at::kDouble).contiguous(), d = deviation.to(at::kDouble);
  const at::Tensor low = (lower_ * d).contiguous(), high = (upper_ * d).contiguous(), change = at::linalg_solve(system, right).contiguous();
  const int64_t size = start_.size(1);
  for (int64_t i = 0; i < start_.size(0); ++i)
    bound(system.const_data_ptr<double>() + i * size * size, right.const_data_ptr<double>() + i * size, low.const_data_ptr<double>() + i * size,
          high.const_data_ptr<double>() + i * size, change.mutable_data_ptr<double>() + i * size, size);
  coefficients_.copy_(start_.to(at::kDouble) + change / d);
}

}  // namespace ektm
