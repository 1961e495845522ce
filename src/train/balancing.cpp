#include "train/balancing.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/random.h"
#include "nn/kernels.h"

namespace ektm {
namespace {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
const at::TensorOptions kInDouble = at::TensorOptions().dtype(at::kDouble);

// The tasks that have a gradient in the shared maps, and the inner products of these gradients summed over the shared maps.
struct SharedProducts {
  std::vector<int64_t> tasks;
  std::vector<double> values;  // [n,n]
  int64_t n() const { return static_cast<int64_t>(tasks.size()); }
  double operator()(int64_t i, int64_t j) const { return values[i * n() + j]; }

  explicit SharedProducts(const BalanceInput& input) {
    const at::Tensor sum = input.products.index_select(0, input.shared.nonzero().squeeze(1)).sum(0);  // [K,K]
    const double* all = sum.const_data_ptr<double>();
    const int64_t count = sum.size(0);
    for (int64_t t = 0; t < count; ++t)
      if (all[t * count + t] > 0) tasks.push_back(t);
    for (int64_t i : tasks)
      for (int64_t j : tasks) values.push_back(all[i * count + j]);
  }
  // (product of the matrix with w)_i
  double times(const std::vector<double>& w, int64_t i) const {
    double sum = 0;
    for (int64_t j = 0; j < n(); ++j) sum += (*this)(i, j) * w[j];
    return sum;
  }
  // w' M w, not below 0 by rounding
  double square(const std::vector<double>& w) const {
    double sum = 0;
    for (int64_t i = 0; i < n(); ++i) sum += w[i] * times(w, i);
    return std::max(0.0, sum);
  }
};

// Factors of the tasks in `products` where a map is shared, 1 elsewhere: [M,K].
at::Tensor in_shared_maps(const BalanceInput& input, const SharedProducts& products, const std::vector<double>& factors) {
  at::Tensor by_task = at::ones({input.products.size(1)}, kInDouble);
  for (int64_t i = 0; i < products.n(); ++i) by_task[products.tasks[i]] = factors[i];
  return at::where(input.shared.unsqueeze(1), by_task, at::ones({}, kInDouble));
}

// The minimum of a convex function over {w >= 0, sum w = 1}, from its gradient. Frank-Wolfe in its pairwise form: weight moves from the
// worst vertex in use to the best one, as far as an exact line search says; for two tasks one move is the solution.
std::vector<double> minimise_on_simplex(int64_t n, const std::function<std::vector<double>(const std::vector<double>&)>& gradient) {
  constexpr int kMoves = 1000, kHalvings = 60;
  constexpr double kGap = 1e-10;
  std::vector<double> w(n, 1 / static_cast<double>(n));
  for (int move = 0; move < kMoves; ++move) {
    const std::vector<double> slope = gradient(w);
    int64_t best = 0, worst = -1;
    double size = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (slope[i] < slope[best]) best = i;
      if (w[i] > 0 && (worst < 0 || slope[i] > slope[worst])) worst = i;
      size = std::max(size, std::abs(slope[i]));
    }
    if (!(slope[worst] - slope[best] > kGap * size)) break;
    auto moved = [&](double step) {
      std::vector<double> to = w;
      to[best] += step;
      to[worst] = step == w[worst] ? 0 : to[worst] - step;
      return to;
    };
    auto falls = [&](double step) {
      const std::vector<double> there = gradient(moved(step));
      return there[best] < there[worst];
    };
    double low = 0, high = w[worst];
    if (falls(high)) {
      low = high;
    } else {
      for (int i = 0; i < kHalvings; ++i) {
        const double middle = 0.5 * (low + high);
        (falls(middle) ? low : high) = middle;
      }
    }
    if (low == 0) break;
    w = moved(low);
  }
  return w;
}

// Numbers of tasks that Adam learns. A task that sits a step out keeps its number and its moments.
class LearnedNumbers {
 public:
  LearnedNumbers(int64_t tasks, float start, double learning_rate)
      : values_(at::full({tasks}, start)), m_(at::zeros({tasks})), v_(at::zeros({tasks})), steps_(at::zeros({tasks}, at::kLong)),
        learning_rate_(learning_rate) {}
  float& operator[](int64_t task) { return values_.data_ptr<float>()[task]; }
  at::Tensor values() const { return values_; }
  void step(int64_t task, double gradient) {
    const auto adam = kernels::adam_step(learning_rate_, 0.9, 0.999, 1e-8, 0, ++steps_.data_ptr<int64_t>()[task]);
    const float g = static_cast<float>(gradient);
    kernels::adam(1, adam, 1, &g, &(*this)[task], m_.data_ptr<float>() + task, v_.data_ptr<float>() + task);
  }
  NamedTensors state(const std::string& name) const {
    return {{"balance." + name, values_}, {"balance.m", m_}, {"balance.v", v_}, {"balance.steps", steps_}};
  }

 private:
  at::Tensor values_, m_, v_, steps_;
  double learning_rate_;
};

// Kendall et al., CVPR 2018: exp(-s) L + s / 2, with s = log of the variance.
class Uncertainty : public BalancingMethod {
 public:
  Uncertainty(const BalancingConfig& config, int64_t tasks) : log_variances_(tasks, 0, config.learning_rate) {}
  bool uses_gradients() const override { return false; }
  at::Tensor weigh(const BalanceInput& input) override {
    at::Tensor weights = at::exp(-log_variances_.values().to(at::kDouble));
    for (size_t t = 0; t < input.losses.size(); ++t)
      if (input.losses[t] > 0) log_variances_.step(static_cast<int64_t>(t), 0.5 - weights.const_data_ptr<double>()[t] * input.losses[t]);
    return weights;
  }
  NamedTensors state() const override { return log_variances_.state("log_variances"); }

 private:
  LearnedNumbers log_variances_;
};

// Dynamic weight averaging, Liu et al., CVPR 2019: a softmax over the ratios of the last two mean losses.
class Dwa : public BalancingMethod {
 public:
  Dwa(const BalancingConfig& config, int64_t tasks)
      : temperature_(config.temperature), window_steps_(config.window_steps), losses_(at::zeros({4, tasks}, kInDouble)),
        steps_(at::zeros({1}, at::kLong)) {}
  bool uses_gradients() const override { return false; }
  at::Tensor weigh(const BalanceInput& input) override {
    const at::Tensor sums = losses_[0], counts = losses_[1], last = losses_[2], before = losses_[3];  // of the open window; of the last two
    const at::Tensor ratios = at::where((last > 0).logical_and(before > 0), last / before, at::ones_like(last));
    const at::Tensor weights = at::softmax(ratios / temperature_, 0) * static_cast<double>(input.losses.size());
    const at::Tensor losses = at::tensor(input.losses, kInDouble);
    sums.add_(losses);
    counts.add_(losses != 0);
    int64_t& steps = steps_.data_ptr<int64_t>()[0];
    if (++steps == window_steps_) {
      // A task that the window has not seen keeps its two means.
      const at::Tensor seen = counts > 0;
      before.copy_(at::where(seen, last, before));
      last.copy_(at::where(seen, sums / counts.clamp_min(1), last));
      sums.zero_();
      counts.zero_();
      steps = 0;
    }
    return weights;
  }
  NamedTensors state() const override { return {{"balance.losses", losses_}, {"balance.window", steps_}}; }

 private:
  double temperature_;
  int64_t window_steps_;
  at::Tensor losses_, steps_;  // [4,K], [1]
};

// Chen et al., ICML 2018.
class GradNorm : public BalancingMethod {
 public:
  GradNorm(const BalancingConfig& config, int64_t tasks)
      : alpha_(config.alpha), learned_(tasks, 1, config.learning_rate), first_losses_(at::zeros({tasks}, kInDouble)) {}
  at::Tensor weigh(const BalanceInput& input) override {
    const at::Tensor weights = learned_.values().to(at::kDouble);  // of this step; what is learned from it counts from the next one on
    const SharedProducts products(input);
    double* first = first_losses_.data_ptr<double>();
    std::vector<double> norms, rates;
    double mean_norm = 0, mean_rate = 0, sum = 0;
    for (int64_t i = 0; i < products.n(); ++i) {
      const int64_t t = products.tasks[i];
      // Losses that an estimate made negative say nothing about progress.
      const double loss = std::max(0.0, input.losses[t]);
      if (first[t] == 0) first[t] = loss;
      norms.push_back(std::sqrt(products(i, i)));
      rates.push_back(first[t] > 0 ? loss / first[t] : 1);
      mean_norm += learned_[t] * norms[i] / static_cast<double>(products.n());
      mean_rate += rates[i] / static_cast<double>(products.n());
      sum += learned_[t];
    }
    double sum_after = 0;
    for (int64_t i = 0; i < products.n(); ++i) {
      const int64_t t = products.tasks[i];
      const double over = learned_[t] * norms[i] - mean_norm * (mean_rate > 0 ? std::pow(rates[i] / mean_rate, alpha_) : 1);
      learned_.step(t, over > 0 ? norms[i] : over < 0 ? -norms[i] : 0);
      learned_[t] = std::max(learned_[t], kSmallest);
      sum_after += learned_[t];
    }
    for (int64_t t : products.tasks) learned_[t] = static_cast<float>(learned_[t] * sum / sum_after);
    return weights;
  }
  NamedTensors state() const override {
    NamedTensors tensors = learned_.state("weights");
    tensors.emplace_back("balance.first_losses", first_losses_);
    return tensors;
  }

 private:
  static constexpr float kSmallest = 1e-3f;  // a weight must not become negative
  double alpha_;
  LearnedNumbers learned_;
  at::Tensor first_losses_;  // [K]; 0: none yet
};

// Gradient surgery, Yu et al., NeurIPS 2020. All vectors here are combinations of the tasks' gradients, so their coefficients do.
class PcGrad : public BalancingMethod {
 public:
  explicit PcGrad(uint64_t seed) : seed_(mix64(seed)) {}
  at::Tensor weigh(const BalanceInput& input) override {
    const SharedProducts products(input);
    Rng rng(seed_, static_cast<uint64_t>(input.step));
    std::vector<double> sum(products.n(), 0);
    for (int64_t i = 0; i < products.n(); ++i) {
      std::vector<int64_t> others;
      for (int64_t j = 0; j < products.n(); ++j)
        if (j != i) others.push_back(j);
      shuffle(others, rng);
      std::vector<double> projected(products.n(), 0);
      projected[i] = 1;
      for (int64_t j : others)
        if (const double dot = products.times(projected, j); dot < 0) projected[j] -= dot / products(j, j);
      for (int64_t j = 0; j < products.n(); ++j) sum[j] += projected[j];
    }
    return in_shared_maps(input, products, sum);
  }

 private:
  uint64_t seed_;
};

// Conflict-averse gradient descent, Liu et al., NeurIPS 2021: d = g0 + c |g0| g_w / |g_w|, g0 the mean gradient, w the minimum over the
// simplex of g_w . g0 + c |g0| |g_w|.
class CaGrad : public BalancingMethod {
 public:
  explicit CaGrad(const BalancingConfig& config) : c_(config.c) {}
  at::Tensor weigh(const BalanceInput& input) override {
    const SharedProducts products(input);
    const int64_t n = products.n();
    std::vector<double> factors(n, 1);
    if (n > 0) {
      const std::vector<double> mean(n, 1 / static_cast<double>(n));
      const double radius = c_ * std::sqrt(products.square(mean));
      const std::vector<double> w = minimise_on_simplex(n, [&](const std::vector<double>& at_w) {
        const double norm = std::sqrt(products.square(at_w));
        std::vector<double> slope(n);
        for (int64_t i = 0; i < n; ++i) slope[i] = products.times(mean, i) + (norm > 0 ? radius / norm * products.times(at_w, i) : 0);
        return slope;
      });
      const double norm = std::sqrt(products.square(w));
      for (int64_t i = 0; i < n; ++i) factors[i] += norm > 0 ? static_cast<double>(n) * radius / norm * w[i] : 0;
    }
    return in_shared_maps(input, products, factors);
  }

 private:
  double c_;
};

// Multiple-gradient descent, Sener & Koltun, NeurIPS 2018: the point of least norm in the convex hull of the gradients.
class Mgda : public BalancingMethod {
 public:
  explicit Mgda(const BalancingConfig& config) : normalize_(config.normalize) {}
  at::Tensor weigh(const BalanceInput& input) override {
    const SharedProducts products(input);
    const int64_t n = products.n();
    std::vector<double> scales(n, 1), factors;
    for (int64_t i = 0; i < n; ++i) {
      if (normalize_ == "norm") scales[i] = 1 / std::sqrt(products(i, i));
      if (normalize_ == "loss") scales[i] = 1 / std::abs(input.losses[products.tasks[i]]);
    }
    if (n > 0)
      factors = minimise_on_simplex(n, [&](const std::vector<double>& w) {
        std::vector<double> scaled(n), slope(n);
        for (int64_t i = 0; i < n; ++i) scaled[i] = scales[i] * w[i];
        for (int64_t i = 0; i < n; ++i) slope[i] = scales[i] * products.times(scaled, i);
        return slope;
      });
    for (double& factor : factors) factor *= static_cast<double>(n);
    return in_shared_maps(input, products, factors);
  }

 private:
  std::string normalize_;
};

// He et al., WWW 2022: in each map the other tasks' gradients are scaled towards the norm of the target's, by moving averages.
class MetaBalance : public BalancingMethod {
 public:
  MetaBalance(const BalancingConfig& config, int64_t target, int64_t maps, int64_t tasks)
      : config_(config), target_(target), sums_(at::zeros({maps, tasks}, kInDouble)), weights_(at::zeros({maps, tasks}, kInDouble)) {}
  at::Tensor weigh(const BalanceInput& input) override {
    const at::Tensor norms = input.products.diagonal(0, 1, 2).sqrt();  // [M,K]
    // A task without a gradient in a map has its average there unchanged.
    const at::Tensor seen = norms > 0;
    sums_.copy_(at::where(seen, config_.decay * sums_ + (1 - config_.decay) * norms, sums_));
    weights_.copy_(at::where(seen, config_.decay * weights_ + (1 - config_.decay), weights_));
    const at::Tensor averages = sums_ / weights_.clamp_min(1e-300), target = averages.narrow(1, target_, 1);
    const at::Tensor ratio = target / averages;
    at::Tensor scaled = (target > 0).logical_and(averages > 0);
    if (config_.direction == "shrink") scaled = scaled.logical_and(ratio < 1);
    if (config_.direction == "enlarge") scaled = scaled.logical_and(ratio > 1);
    return at::where(scaled, config_.relax * ratio + (1 - config_.relax), at::ones_like(ratio));
  }
  NamedTensors state() const override { return {{"balance.norm_sums", sums_}, {"balance.norm_weights", weights_}}; }

 private:
  BalancingConfig config_;
  int64_t target_;
  at::Tensor sums_, weights_;  // [M,K]: their quotient is the average, whatever the number of steps that went into it
};

int64_t find_target(const BalancingConfig& config, const std::vector<std::string>& tasks) {
  if (config.target.empty()) return static_cast<int64_t>(tasks.size()) - 1;
  const auto found = std::find(tasks.begin(), tasks.end(), config.target);
  if (found == tasks.end())
    fail(ErrorKind::Config, "loss.balancing.target", "no task has the name '{}'; the data set's tasks are: {}.{}", config.target,
         fmt::join(tasks, ", "), did_you_mean(config.target, tasks));
  return found - tasks.begin();
}

std::unique_ptr<BalancingMethod> make_method(const LossConfig& config, const std::vector<std::string>& tasks, int64_t maps, uint64_t seed) {
  const BalancingConfig& keys = config.balancing;
  const int64_t count = static_cast<int64_t>(tasks.size());
  if (config.balance == "uncertainty") return std::make_unique<Uncertainty>(keys, count);
  if (config.balance == "dwa") return std::make_unique<Dwa>(keys, count);
  if (config.balance == "gradnorm") return std::make_unique<GradNorm>(keys, count);
  if (config.balance == "pcgrad") return std::make_unique<PcGrad>(seed);
  if (config.balance == "cagrad") return std::make_unique<CaGrad>(keys);
  if (config.balance == "mgda") return std::make_unique<Mgda>(keys);
  EKTM_CHECK(config.balance == "metabalance");
  return std::make_unique<MetaBalance>(keys, find_target(keys, tasks), maps, count);
}

int64_t maps_of(const at::Tensor& tensor, int64_t map_dim) { return map_dim < 0 ? 1 : tensor.size(map_dim); }

}  // namespace

at::Tensor Balancer::Part::maps() const {
  if (map_dim < 0) return rows.reshape({1, rows.size(0), -1});
  return rows.movedim(1 + map_dim, 0).reshape({sum.size(map_dim), rows.size(0), -1});
}

Balancer::Balancer(const LossConfig& config, const std::vector<std::string>& tasks, ParameterStore& parameters, int64_t leaf_maps, uint64_t seed)
    : parameters_(parameters), weights_(tasks.size(), 1.0) {
  int64_t maps = leaf_maps;
  for (const auto& entry : parameters.entries())
    if (entry.trainable) maps += maps_of(entry.tensor, entry.map_dim);
  method_ = make_method(config, tasks, maps, seed);
}

void Balancer::backward(const LossTerms& loss, const std::vector<Leaf>& leaves, int64_t step) {
  BalanceInput input;
  input.step = step;
  const at::Tensor losses = loss.task_losses.detach().to(at::kDouble).contiguous();
  EKTM_CHECK(losses.numel() == static_cast<int64_t>(weights_.size()));
  input.losses.assign(losses.const_data_ptr<double>(), losses.const_data_ptr<double>() + losses.numel());
  if (method_->uses_gradients()) return backward_of_each(loss, leaves, std::move(input));
  const at::Tensor weights = method_->weigh(input);
  weights_.assign(weights.const_data_ptr<double>(), weights.const_data_ptr<double>() + weights.numel());
  (loss.task_losses * weights.to(loss.task_losses.dtype())).sum().backward();
  parameters_.collect_grads();
}

void Balancer::backward_of_each(const LossTerms& loss, const std::vector<Leaf>& leaves, BalanceInput input) {
  const int64_t tasks = static_cast<int64_t>(weights_.size());
  const at::Tensor& grads = parameters_.grads();
  if (!rows_.defined()) rows_ = at::empty({tasks, grads.numel()}, grads.options());
  std::vector<at::Tensor> leaf_rows;
  for (const Leaf& leaf : leaves) {
    std::vector<int64_t> shape = leaf.tensor.sizes().vec();
    shape.insert(shape.begin(), tasks);
    leaf_rows.push_back(at::zeros(shape, leaf.tensor.options().requires_grad(false)));
  }
  for (int64_t t = 0; t < tasks; ++t) {
    parameters_.zero_grad();
    for (const Leaf& leaf : leaves) leaf.tensor.mutable_grad() = at::Tensor();
    loss.task_losses[t].backward({}, /*retain_graph=*/t + 1 < tasks);
    parameters_.collect_grads(rows_[t]);
    for (size_t i = 0; i < leaves.size(); ++i)
      if (leaves[i].tensor.grad().defined()) {
        leaf_rows[i][t].copy_(leaves[i].tensor.grad());
        for (const auto& [first, count] : leaves[i].meaningless) leaf_rows[i][t].narrow(-1, first, count).zero_();
      }
  }

  std::vector<Part> parts;
  int64_t first = 0;
  for (const auto& entry : parameters_.entries()) {
    if (!entry.trainable) continue;
    const int64_t size = entry.tensor.numel();
    std::vector<int64_t> with_tasks = entry.tensor.sizes().vec();
    with_tasks.insert(with_tasks.begin(), tasks);
    parts.push_back({rows_.narrow(1, first, size).view(with_tasks), grads.narrow(0, first, size).view(entry.tensor.sizes()), entry.map_dim});
    first += size;
  }
  for (size_t i = 0; i < leaves.size(); ++i) {
    leaves[i].tensor.mutable_grad() = at::empty(leaves[i].tensor.sizes(), leaf_rows[i].options());
    if (const int64_t columns = leaves[i].columns; columns > 0)
      parts.push_back({leaf_rows[i].unflatten(2, {-1, columns}), leaves[i].tensor.grad().unflatten(1, {-1, columns}), 1});
    else
      parts.push_back({leaf_rows[i], leaves[i].tensor.grad(), 0});
  }

  std::vector<at::Tensor> products;
  for (const Part& part : parts) {
    const at::Tensor maps = part.maps().to(at::kDouble);
    products.push_back(maps.bmm(maps.transpose(1, 2)));
  }
  input.products = at::cat(products);
  const at::Tensor squares = input.products.diagonal(0, 1, 2);  // [M,K]
  input.shared = (squares > 0).sum(1) >= 2;
  const at::Tensor weights = method_->weigh(input).expand_as(squares);

  int64_t map = 0;
  for (const Part& part : parts) {
    const at::Tensor maps = part.maps();  // [E,K,n]
    const at::Tensor sums = weights.narrow(0, map, maps.size(0)).to(maps.dtype()).unsqueeze(1).bmm(maps);
    at::Tensor to = part.map_dim < 0 ? part.sum : part.sum.movedim(part.map_dim, 0);
    to.copy_(sums.view(to.sizes()));
    map += maps.size(0);
  }
  const at::Tensor shared_squares = squares * input.shared.unsqueeze(1);
  const at::Tensor before = shared_squares.sum(0), after = (weights.square() * shared_squares).sum(0);
  for (int64_t t = 0; t < tasks; ++t) {
    const double square = before[t].item<double>();
    weights_[t] = square > 0 ? std::sqrt(after[t].item<double>() / square) : 1;
  }
}

}  // namespace ektm
