#pragma once
// TPE (Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011) over lists of choices. A trial is the index of its choice
// in each key's list.
#include <optional>
#include <vector>

#include "base/random.h"

namespace ektm {

using TrialChoices = std::vector<size_t>;  // [keys]

struct TriedChoices {
  TrialChoices choices;
  std::optional<double> value;  // larger is better; absent or NaN for a trial that broke off, which counts as worst
};

struct TpeOptions {
  double gamma = 0.25;    // share of the trials that count as good: ceil(gamma n), of those with a value
  double prior = 1;       // pseudo-trials of each estimate, spread evenly over a key's choices
  int candidates = 24;    // drawn from the estimate of the good trials
  int draws_each = 10;    // at most candidates * draws_each draws, as those that were tried before are left out
};

// log of (count of each choice in `trials` + prior / choices) / (trials + prior), for a key with `choices` choices. Returns [choices].
std::vector<double> log_parzen(const std::vector<const TriedChoices*>& trials, size_t key, size_t choices, double prior);

// The next trial: of candidates drawn from l, the estimate of the good trials, the one with the largest l/g, g the estimate of the others;
// keys are independent. `sizes` [keys]: choices of each key; `fixed` [keys]: the choice that a key must take, where it may not be searched.
// What stands in `history` is not proposed again while another combination that agrees with `fixed` is left.
TrialChoices propose_tpe(const std::vector<size_t>& sizes, const std::vector<std::optional<size_t>>& fixed, const std::vector<TriedChoices>& history,
                         const TpeOptions& options, Rng& rng);

}  // namespace ektm
