#pragma once
// Logistic regressions fitted batch by batch, on rows before they are trained on: what each of T labels owes to K sources.
//
// The model is logit P(y_i = 1) = sum_j a_ij u_j + what else the given logit holds. Of a batch it uses which of its rows are positive, not how
// many there are: the logits are shifted until they predict their number, so an intercept that is still being learned elsewhere does no harm.
// With p of the shifted logits, row weights w, s = w (p (1 - p) + (y - p)^2) / 2, u centred by s, and d_ij = the standard deviation of u_j under s_i, or 1 where
// that is larger:
//
//   g_i = sum_b w (y_i - p_i) u            [K]    slope of the log-likelihood
//   H_i = sum_b s_i (u - mean) (u - mean)' [K,K]  information: the mean of the expected and of the empirical one. They are equal where the model
//                                                 holds; where it fails, on rows that it is sure of, the second keeps the step short
//   S_i = (1 - 1/n) S_i + H_i / d d',  r_i = (1 - 1/n) r_i + (H_i (a_i - start_i) + g_i) / d   in batch n: batch k weighs k / n, since the sources still change
//   c_i = the smallest of c' (S_i + prior (1 + warmup / n) I) c / 2 - r_i' c with lower <= start_i + c / d <= upper;  a_i = start_i + c_i / d
//
// One step of Newton: iterated least squares, online, with a ridge and bounds. Evidence is kept in units of the sources' scale where that is large: while they
// learn they overshoot, and what was seen then would outweigh all that follows by its square. Sources that are still small stay small evidence, so that the ridge
// holds them. d^2 is a running mean, in which a batch weighs 1/10. The bounds are what makes it safe: the sources learn from what the coefficients let
// through, and without bounds the two can chase each other without end.
// A batch without a positive or without a negative of label i only ages S_i and r_i. `prior` is in units of information: it outweighs the data until a
// source has been seen with about so many positives of a rare label. `warmup` in batches: what is seen of sources that have hardly begun to learn is discounted.
#include <ATen/ATen.h>

#include <string>

#include "nn/parameters.h"

namespace ektm {

class OnlineRegression {
 public:
  // start [T,K]; open [T,K] bool: coefficients elsewhere stay at their start; lower <= start <= upper [T,K]. Its state lives in `store` as buffers, so
  // that a resumed run goes on.
  OnlineRegression(ParameterStore& store, const std::string& name, const at::Tensor& start, const at::Tensor& open, const at::Tensor& lower,
                   const at::Tensor& upper, double prior, double warmup);

  const at::Tensor& coefficients() const { return coefficients_; }  // a [T,K]

  // logits [T,B] as predicted with coefficients(), sources u [K,B], labels and weight [T,B] (0: not observed). Takes no part in autograd.
  void observe(const at::Tensor& logits, const at::Tensor& sources, const at::Tensor& labels, const at::Tensor& weight);

 private:
  double prior_, warmup_;
  at::Tensor open_;                                    // [T,K], 0 or 1
  at::Tensor lower_, upper_;                           // [T,K], double: of a - start
  at::Tensor start_, coefficients_, response_, scale_; // [T,K]; scale: variances, 0 before the first batch
  at::Tensor information_, batches_;                   // [T,K,K], [1]
};

}  // namespace ektm
