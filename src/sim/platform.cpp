#include "sim/platform.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/random.h"

namespace ektm {
namespace {

constexpr int64_t kFirstSecond = 1'736'121'600;  // Monday, 6 January 2025, 00:00 UTC
constexpr int64_t kDaySeconds = 86'400;
constexpr double kClickShared = 0.8;
constexpr int64_t kMinSampleRows = 50'000, kMaxSampleRows = 150'000;

// Families of random streams: the upper bits of the stream number.
enum Stream : uint64_t { kUsers = 1, kItems, kEffects, kImpressions, kSample, kLabels, kUserNoise, kItemNoise, kReports, kBids };
uint64_t stream(Stream family, uint64_t index) {
  return (static_cast<uint64_t>(family) << 56) + index;
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

int level(Rng& rng, const PowerLaw& law) {
  return static_cast<int>(law.rank(rng.uniform()));
}

// Eight values of mean 0 and variance 1 (uniform) that belong to an id.
void id_values(uint64_t seed, uint64_t stream, float* values) {
  constexpr float kScale = 3.4641016f / 65536;  // sqrt(12): standard deviation of U(0,1) is 1/sqrt(12)
  uint64_t bits = mix64(seed ^ mix64(stream));
  uint64_t more = mix64(bits);
  for (int i = 0; i < 4; ++i) {
    values[i] = (static_cast<float>((bits >> (16 * i)) & 0xffff) - 32767.5f) * kScale;
    values[4 + i] = (static_cast<float>((more >> (16 * i)) & 0xffff) - 32767.5f) * kScale;
  }
}

}  // namespace

PowerLaw::PowerLaw(int64_t n, double exponent) : n_(n), power_(1 / (1 - exponent)), span_(std::pow(n + 1.0, 1 - exponent) - 1) {
  EKTM_CHECK(n >= 1 && exponent != 1);
}

int64_t PowerLaw::rank(double uniform) const {
  // Inverse of the distribution function of x^-exponent on [1, n + 1).
  return std::min(static_cast<int64_t>(std::pow(uniform * span_ + 1, power_)) - 1, n_ - 1);
}

Platform::Effects::Effects(uint64_t seed, uint64_t number, int64_t levels, double main_sd, double vector_sd)
    : values_(levels * kStride) {
  for (int64_t i = 0; i < levels; ++i) {
    Rng rng(seed, stream(kEffects, (number << 40) + i));
    for (int k = 0; k < kStride; ++k) at(i)[k] = static_cast<float>(rng.normal() * (k < kLanes ? main_sd : vector_sd));
  }
}

Platform::Platform(const SimulationConfig& config)
    : config_((config.check(), config)),
      seed_(static_cast<uint64_t>(config.seed)),
      tasks_(config.tasks()),
      lanes_used_(static_cast<int>(tasks_.size()) + 1),
      advertisers_(config.items / 20 + 1),
      user_law_(config.users, 0.6),
      item_law_(config.items, 0.8) {
  EKTM_CHECK(tasks_.size() <= static_cast<size_t>(kMaxTasks));
  make_users();
  make_items();
  make_effects();
  // Few impressions at night, most in the evening.
  const double weights[kHours] = {2, 1, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 6, 5, 5, 5, 5, 6, 7, 8, 8, 6, 4};
  hour_starts_.assign(1, 0);
  for (double weight : weights) hour_starts_.push_back(hour_starts_.back() + weight);
  for (double& start : hour_starts_) start /= hour_starts_.back();
  hour_starts_.back() = 1;
  calibrate();
}

void Platform::make_users() {
  const PowerLaw ages(kAgeGroups, 0.4), genders(kGenders, 0.7), cities(kCityTiers, 0.5), devices(kDevices, 0.9);
  const PowerLaw categories(kCategories, 0.7);
  users_.resize(config_.users);
  for (int64_t i = 0; i < config_.users; ++i) {
    Rng rng(seed_, stream(kUsers, i));
    SimulatedUser& user = users_[i];
    user.age_group = level(rng, ages);
    user.gender = level(rng, genders);
    user.city_tier = level(rng, cities);
    user.device = level(rng, devices);
    user.interest = level(rng, categories);
    user.taste = level(rng, categories);
    double activity = rng.normal();
    user.activity = static_cast<float>(std::round(std::exp(activity + 1) * 100) / 100);
    user.activity_level = std::clamp(static_cast<int>(std::floor((activity + 2) * 2)), 0, kActivityLevels - 1);
    user.missing = 0;
    for (uint8_t bit : {kMissingGender, kMissingCityTier, kMissingActivity})
      if (rng.uniform() < config_.missing) user.missing |= bit;
  }
}

void Platform::make_items() {
  const PowerLaw categories(kCategories, 0.7), brands(40, 0.9), creatives(kCreativeTypes, 0.5), tags(30, 0.7);
  const PowerLaw advertisers(advertisers_, 0.5);
  items_.resize(config_.items);
  items_by_category_.resize(kCategories);
  for (int64_t i = 0; i < config_.items; ++i) {
    Rng rng(seed_, stream(kItems, i));
    SimulatedItem& item = items_[i];
    item.category = level(rng, categories);
    item.brand =
        (item.category * 17 + level(rng, brands)) % kBrands;  // a category has brands of its own, some shared with others
    item.creative_type = level(rng, creatives);
    item.advertiser = static_cast<uint32_t>(advertisers.rank(rng.uniform()));
    double price = rng.normal();
    item.price = static_cast<float>(std::round(std::exp(price + 3) * 100) / 100);
    item.price_level = std::clamp(static_cast<int>(std::floor((price + 2) * 2)), 0, kPriceLevels - 1);
    item.bid = static_cast<float>(std::exp(0.5 * rng.normal()));
    item.tags = {};
    item.tag_count = 0;
    for (int wanted = 1 + static_cast<int>(rng.below(kMaxTags)); wanted > 0; --wanted) {
      uint8_t tag = (item.category * 6 + level(rng, tags)) % kTags;
      auto end = item.tags.begin() + item.tag_count;
      if (std::find(item.tags.begin(), end, tag) == end) item.tags[item.tag_count++] = tag;
    }
    item.missing = 0;
    for (uint8_t bit : {kMissingBrand, kMissingPrice})
      if (rng.uniform() < config_.missing) item.missing |= bit;
    items_by_category_[item.category].push_back(static_cast<uint32_t>(i));
  }
  for (const auto& items : items_by_category_) category_laws_.emplace_back(std::max<int64_t>(1, items.size()), 0.8);
}

void Platform::make_effects() {
  uint64_t number = 0;
  auto make = [&](int64_t levels, double main_sd, double vector_sd) {
    return Effects(seed_, ++number, levels, main_sd, vector_sd);
  };
  age_ = make(kAgeGroups, 0.5, 0.6);
  gender_ = make(kGenders, 0.3, 0.6);
  city_ = make(kCityTiers, 0.3, 0);
  device_ = make(kDevices, 0.3, 0);
  interest_ = make(kCategories, 0.5, 1);
  activity_ = make(kActivityLevels, 0.4, 0);
  taste_ = make(kCategories, 0, 0.7);
  category_ = make(kCategories, 0.6, 1);
  brand_ = make(kBrands, 0.5, 0.5);
  creative_ = make(kCreativeTypes, 0.4, 0.5);
  price_ = make(kPriceLevels, 0.4, 0);
  tag_ = make(kTags, 0.6, 0);
  advertiser_ = make(advertisers_, 0.4, 0);
  category_drift_ = make(kCategories, 1, 0);
  scenario_ = make(kScenarios, 0.4, 0);
  hour_ = make(kHours, 0.2, 0);
  position_ = make(kPositions, 0, 0);
  // What stands lower is clicked less. Lane 1 is the interest of the click alone.
  for (int position = 0; position < kPositions; ++position) position_.at(position)[1] = -0.12f * position;
}

int64_t Platform::first_row(int64_t day) const {
  return static_cast<int64_t>(static_cast<__int128>(config_.rows) * day / config_.days);
}

Impression Platform::impression(int64_t row) const {
  EKTM_CHECK(row >= 0 && row < config_.rows);
  return draw(stream(kImpressions, row), (row + 0.5) / config_.rows, row);
}

Impression Platform::draw(uint64_t stream_number, double time_share, int64_t row) const {
  Rng rng(seed_, stream_number);
  Impression impression;
  impression.row = row;
  double day_share = time_share * config_.days;
  impression.day = std::min(static_cast<int>(day_share), static_cast<int>(config_.days) - 1);
  double within_day = std::clamp(day_share - impression.day, 0.0, 0x1.fffffep-1);
  impression.hour = std::upper_bound(hour_starts_.begin(), hour_starts_.end(), within_day) - hour_starts_.begin() - 1;
  double start = hour_starts_[impression.hour], end = hour_starts_[impression.hour + 1];
  int second = std::min(3599, static_cast<int>((within_day - start) / (end - start) * 3600));
  impression.ts = kFirstSecond + impression.day * kDaySeconds + impression.hour * 3600 + second;

  impression.user = static_cast<uint32_t>(user_law_.rank(rng.uniform()));
  const SimulatedUser& user = users_[impression.user];
  impression.scenario = rng.uniform() < config_.search_share ? kSearch : kFeed;
  // Day by day some items lead that stood further behind, and the former leaders go.
  double moved = 0.003 * config_.drift * impression.day;
  const auto& wanted = items_by_category_[rng.uniform() < 0.5 ? user.interest : user.taste];
  // Search shows what the user asks for; feed mostly what is popular.
  if (!wanted.empty() && rng.uniform() < (impression.scenario == kSearch ? 0.8 : 0.2)) {
    const PowerLaw& law = category_laws_[items_[wanted[0]].category];
    impression.item = wanted[(law.rank(rng.uniform()) + static_cast<size_t>(moved * wanted.size())) % wanted.size()];
  } else {
    impression.item = (item_law_.rank(rng.uniform()) + static_cast<uint64_t>(moved * config_.items)) % config_.items;
  }
  impression.position = static_cast<uint8_t>(rng.below(impression.scenario == kSearch ? kPositions / 2 : kPositions));
  impression.bid = std::round(items_[impression.item].bid * static_cast<float>(0.8 + 0.4 * rng.uniform()) * 100) / 100;
  return impression;
}

Platform::Interests Platform::raw_interests(const Impression& impression) const {
  const SimulatedUser& user = users_[impression.user];
  const SimulatedItem& item = items_[impression.item];
  Sum left{}, right{};
  auto add = [](Sum& sum, const float* effect) {
    for (int k = 0; k < kStride; ++k) sum[k] += effect[k];
  };
  auto add_main = [](Sum& sum, const float* effect, float weight) {
    for (int k = 0; k < kLanes; ++k) sum[k] += weight * effect[k];
  };
  add(left, age_.at(user.age_group));
  add(left, gender_.at(user.gender));
  add(left, interest_.at(user.interest));
  add(left, taste_.at(user.taste));
  add_main(left, city_.at(user.city_tier), 1);
  add_main(left, device_.at(user.device), 1);
  add_main(left, activity_.at(user.activity_level), 1);
  add(right, category_.at(item.category));
  add(right, brand_.at(item.brand));
  add(right, creative_.at(item.creative_type));
  add_main(right, price_.at(item.price_level), 1);
  add_main(right, advertiser_.at(item.advertiser), 1);
  for (int t = 0; t < item.tag_count; ++t) add_main(right, tag_.at(item.tags[t]), 1.0f / item.tag_count);
  float time = static_cast<float>(impression.day) / std::max<int64_t>(1, config_.days - 1) - 0.5f;  // -0.5 .. 0.5
  add_main(right, category_drift_.at(item.category), static_cast<float>(config_.drift) * time);
  add_main(right, scenario_.at(impression.scenario), 1);
  add_main(right, hour_.at(impression.hour), 1);
  add_main(right, position_.at(impression.position), 1);
  float user_noise[kLanes], item_noise[kLanes];
  id_values(seed_, stream(kUserNoise, impression.user), user_noise);
  id_values(seed_, stream(kItemNoise, impression.item), item_noise);

  constexpr float kProductWeight = 0.25f;  // brings the inner products to about the standard deviation 1
  std::array<float, kLanes> lanes;
  for (int e = 0; e < kLanes; ++e)
    lanes[e] = left[e] + right[e] + static_cast<float>(config_.id_noise) * (user_noise[e] + item_noise[e]);
  for (int k = 1; k <= kVector; ++k)
    for (int e = 0; e < kLanes; ++e) lanes[e] += kProductWeight * left[k * kLanes + e] * right[k * kLanes + e];
  Interests interests;
  for (int e = 0; e < kLanes; ++e) interests[e] = lanes[e];
  return interests;
}

Platform::Interests Platform::interests(const Impression& impression) const {
  Interests raw = raw_interests(impression), white{};
  for (int e = 0; e < lanes_used_; ++e)
    for (int k = 0; k <= e; ++k) white[e] += whitening_[e][k] * (raw[k] - mean_[k]);
  return white;
}

std::array<double, kMaxTasks> Platform::logits(const Impression& impression) const {
  Interests interest = interests(impression);
  std::array<double, kMaxTasks> logits{};
  for (size_t t = 0; t < tasks_.size(); ++t) {
    double shared = t == 0 ? kClickShared : tasks_[t].relatedness;
    logits[t] = intercepts_[t] + config_.signal * (shared * interest[0] + std::sqrt(1 - shared * shared) * interest[t + 1]);
  }
  return logits;
}

Probabilities Platform::probabilities(const Impression& impression) const {
  std::array<double, kMaxTasks> logit = logits(impression);
  Probabilities probabilities{};
  for (size_t t = 0; t < tasks_.size(); ++t) probabilities[t] = static_cast<float>(sigmoid(logit[t]));
  return probabilities;
}

std::array<uint8_t, kMaxTasks> Platform::labels(const Impression& impression, const Probabilities& probabilities) const {
  Rng rng(seed_, stream(kLabels, impression.row));
  std::array<uint8_t, kMaxTasks> labels{};
  for (size_t t = 0; t < tasks_.size(); ++t) {
    bool parent = tasks_[t].parent < 0 || labels[tasks_[t].parent];
    labels[t] = parent && rng.uniform() < probabilities[t];
    if (t == 0 && !labels[0]) break;
  }
  return labels;
}

bool Platform::reported(uint32_t advertiser, size_t task) const {
  if (task == 0 || config_.unreported == 0) return true;
  return Rng(seed_, stream(kReports, (static_cast<uint64_t>(advertiser) << 8) + task)).uniform() >= config_.unreported;
}

// Over a sample of the log's own impressions (or of others like them when the log is short): makes the interests uncorrelated
// with mean 0 and variance 1, then solves for the intercepts.
void Platform::calibrate() {
  int64_t count = std::clamp(config_.rows, kMinSampleRows, kMaxSampleRows);
  std::vector<Impression> sample(count);
  for (int64_t i = 0; i < count; ++i)
    sample[i] = config_.rows >= count ? impression(static_cast<int64_t>(static_cast<__int128>(config_.rows) * i / count))
                                      : draw(stream(kSample, i), (i + 0.5) / count, 0);

  std::vector<Interests> raw(count);
  for (int64_t i = 0; i < count; ++i) raw[i] = raw_interests(sample[i]);
  for (const auto& row : raw)
    for (int e = 0; e < lanes_used_; ++e) mean_[e] += row[e] / count;
  std::array<Interests, kLanes> lower{};  // covariance, then its Cholesky factor L
  for (const auto& row : raw)
    for (int e = 0; e < lanes_used_; ++e)
      for (int k = 0; k <= e; ++k) lower[e][k] += (row[e] - mean_[e]) * (row[k] - mean_[k]) / count;
  for (int e = 0; e < lanes_used_; ++e) {
    for (int k = 0; k <= e; ++k) {
      double value = lower[e][k];
      for (int j = 0; j < k; ++j) value -= lower[e][j] * lower[k][j];
      lower[e][k] = e == k ? std::sqrt(std::max(value, 1e-9)) : value / lower[k][k];
    }
  }
  for (int e = 0; e < lanes_used_; ++e) {  // W = L^-1 by forward substitution
    for (int k = 0; k <= e; ++k) {
      double value = e == k;
      for (int j = k; j < e; ++j) value -= lower[e][j] * whitening_[j][k];
      whitening_[e][k] = value / lower[e][e];
    }
  }
  raw = {};

  std::vector<std::array<double, kMaxTasks>> logit(count);
  for (int64_t i = 0; i < count; ++i) logit[i] = logits(sample[i]);
  std::vector<std::vector<double>> happened(tasks_.size(), std::vector<double>(count));  // probability of each event
  for (size_t t = 0; t < tasks_.size(); ++t) {
    const std::vector<double>* parent = tasks_[t].parent < 0 ? nullptr : &happened[tasks_[t].parent];
    double weight = 0;
    for (int64_t i = 0; i < count; ++i) weight += parent ? (*parent)[i] : 1;
    double low = -30, high = 30;
    for (int step = 0; step < 40; ++step) {
      double middle = (low + high) / 2, positives = 0;
      for (int64_t i = 0; i < count; ++i) positives += (parent ? (*parent)[i] : 1) * sigmoid(logit[i][t] + middle);
      (positives < tasks_[t].rate * weight ? low : high) = middle;
    }
    intercepts_[t] = (low + high) / 2;
    for (int64_t i = 0; i < count; ++i) happened[t][i] = (parent ? (*parent)[i] : 1) * sigmoid(logit[i][t] + intercepts_[t]);
  }
}

}  // namespace ektm
