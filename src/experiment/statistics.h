#pragma once
// What a comparison over seeds and test rows rests on: Student's t, its sum with another error, Holm's correction, the influence of each row
// on an AUC.
#include <cstdint>
#include <optional>
#include <vector>

#include "metrics/metrics.h"

namespace ektm {

struct MeanStd {
  double mean = 0, std = 0;  // std with n - 1; 0 for one value
};
MeanStd mean_std(const std::vector<double>& values);  // at least one

// P(|T| > |t|) of Student's t with `degrees` >= 1 of freedom (Abramowitz & Stegun 26.7.3, 26.7.4), and the t where it is `tail`.
double student_two_sided(double t, int64_t degrees);
double student_quantile(double tail, int64_t degrees);
// P(|Z| > |z|) of the standard normal.
double normal_two_sided(double z);

// A difference with its 95 % interval and the two-sided p-value of "there is none".
struct Estimate {
  double value = 0;
  Interval interval;
  double p = 1;
  double error = 0;                // standard error
  std::optional<int64_t> degrees;  // of Student's t; absent: normal
  bool holds_zero() const { return interval.low <= 0 && interval.high >= 0; }
};
// Of paired differences, one a seed; absent for fewer than two.
std::optional<Estimate> over_seeds(const std::vector<double>& differences);
// From the squared standard error, by the normal distribution.
Estimate over_rows(double value, double variance);

// P(|a.error * T_a + b.error * T_b| > distance) of two independent errors, each Student's or normal.
double sum_two_sided(double distance, const Estimate& a, const Estimate& b);
// For new draws of both at once, say of seeds and of users: the errors of the two add up. The value is that of `a`. The interval is never
// narrower than that of `a` or `b`, and errs, as that of Behrens and Fisher does, in at most 5 % of cases, often less. Adding the variances
// with Welch's and Satterthwaite's degrees of freedom instead errs too often far out, where Holm's correction looks: with five seeds in up to
// .7 % of cases at p < .0025, with three in up to 2.1 %.
Estimate over_both(const Estimate& a, const Estimate& b);

// Holm's step-down: p-values adjusted for their number, in the order given. Rejecting those below a level errs in any of them with at
// most that probability, however they depend on each other.
std::vector<double> holm(const std::vector<double>& p);

// What each cluster of rows (a user; or a row by itself) adds to the error of an AUC: the squares add up to its variance, and the squares
// of the differences of two models' influences, on the same rows, to the variance of their AUC's difference. With a row a cluster that is
// DeLong, DeLong & Clarke-Pearson 1988 for correlated curves; with several rows a cluster Obuchowski 1997 for clustered data.
struct AucInfluence {
  double auc = 0;
  std::vector<double> by_cluster;
};
// cluster: of each row, in [0, clusters). Absent where fewer than two clusters have a positive, or a negative.
std::optional<AucInfluence> auc_influence(const std::vector<float>& scores, const std::vector<uint8_t>& labels, const std::vector<int64_t>& cluster,
                                          int64_t clusters);

}  // namespace ektm
