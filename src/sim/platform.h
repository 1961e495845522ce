#pragma once
// The simulated platform: who is shown what, and the true probability of every event.
//
// An event's interest is a number per (user, item, context) made of main effects of the attributes, of inner products between
// attribute vectors of user and item, and (smaller) of effects that only the ids tell. There is one interest shared by all events
// (S), one of the click's own, one per conversion; over the impressions they have mean 0, variance 1 and no correlation. Then
//   logit(click)        = b_0 + signal (0.8 S + 0.6 own_0)
//   logit(conversion i) = b_i + signal (rho_i S + sqrt(1 - rho_i^2) own_i)        given that its parent happened
// with the intercepts b solved for the base rates.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "sim/config.h"

namespace ektm {

// Levels of the categorical attributes.
inline constexpr int kAgeGroups = 7, kGenders = 3, kCityTiers = 6, kDevices = 12, kCategories = 32, kActivityLevels = 8;
inline constexpr int kBrands = 400, kCreativeTypes = 5, kPriceLevels = 8, kTags = 200, kMaxTags = 4;
inline constexpr int kScenarios = 2, kFeed = 0, kSearch = 1, kPositions = 10, kHours = 24;
inline constexpr int kMaxTasks = 7;  // with the shared interest this fills the 8 lanes of an effect

struct SimulatedUser {
  uint8_t age_group, gender, city_tier, device, interest, activity_level;
  uint8_t taste;    // a second category of interest that no attribute tells: only the id and the click history do
  uint8_t missing;  // bit per attribute that can be missing: kMissing...
  float activity;   // sessions a week
};

struct SimulatedItem {
  uint32_t advertiser;
  float price, bid;
  uint16_t brand;
  uint8_t category, creative_type, price_level, tag_count;
  std::array<uint8_t, kMaxTags> tags;
  uint8_t missing;
};

inline constexpr uint8_t kMissingGender = 1, kMissingCityTier = 2, kMissingActivity = 4;  // users
inline constexpr uint8_t kMissingBrand = 1, kMissingPrice = 2;                            // items

// One impression, a pure function of config and row number.
struct Impression {
  int64_t row = 0;
  int64_t ts = 0;  // seconds since 1970, UTC
  int day = 0;
  uint32_t user = 0, item = 0;
  uint8_t scenario = 0, position = 0, hour = 0;  // position from 0
  float bid = 0;
};

// p[0]: click; p[i]: conversion i given its parent.
using Probabilities = std::array<float, kMaxTasks>;

// Ranks 0..n-1 with probability proportional to about (rank + 1)^-exponent (the integral of the power law over the rank).
class PowerLaw {
 public:
  PowerLaw(int64_t n, double exponent);
  int64_t rank(double uniform) const;  // uniform in [0, 1)

 private:
  int64_t n_;
  double power_, span_;
};

class Platform {
 public:
  explicit Platform(const SimulationConfig& config);  // Error Config from config.check()

  const SimulationConfig& config() const { return config_; }
  const std::vector<SimulatedTask>& tasks() const { return tasks_; }
  const SimulatedUser& user(uint32_t index) const { return users_[index]; }
  const SimulatedItem& item(uint32_t index) const { return items_[index]; }
  // 64-bit ids. Every second one lies above 2^53, next to its neighbours: a float would merge them.
  static int64_t user_id(uint32_t index) { return index % 2 ? (int64_t{1} << 60) + index : int64_t{10'000} + index; }
  static int64_t item_id(uint32_t index) { return index % 2 ? (int64_t{3} << 59) + index : int64_t{500'000} + index; }

  // 0 <= row < config.rows; time grows with the row.
  Impression impression(int64_t row) const;
  // First row of a day, 0 <= day <= days.
  int64_t first_row(int64_t day) const;
  Probabilities probabilities(const Impression& impression) const;
  std::array<double, kMaxTasks> logits(const Impression& impression) const;
  // The labels of an impression. Below its parent's 0 a task's label is 0.
  std::array<uint8_t, kMaxTasks> labels(const Impression& impression, const Probabilities& probabilities) const;
  // Does the advertiser report this conversion at all?
  bool reported(uint32_t advertiser, size_t task) const;

 private:
  // Per attribute level: for each of 8 interests (0 shared, 1.. per task) a main effect and a vector for the inner products,
  // stored lane by lane: [main x8, vector[0] x8, ..., vector[3] x8].
  static constexpr int kLanes = 8, kVector = 4, kStride = kLanes * (1 + kVector);
  using Sum = std::array<float, kStride>;
  using Interests = std::array<double, kLanes>;
  class Effects {
   public:
    Effects() = default;
    Effects(uint64_t seed, uint64_t stream, int64_t levels, double main_sd, double vector_sd);
    const float* at(int64_t level) const { return values_.data() + level * kStride; }
    float* at(int64_t level) { return values_.data() + level * kStride; }

   private:
    std::vector<float> values_;
  };

  void make_users();
  void make_items();
  void make_effects();
  void calibrate();
  Impression draw(uint64_t stream, double time_share, int64_t row) const;
  Interests raw_interests(const Impression& impression) const;
  Interests interests(const Impression& impression) const;

  SimulationConfig config_;
  uint64_t seed_;
  std::vector<SimulatedTask> tasks_;
  int lanes_used_;
  int64_t advertisers_;
  std::vector<SimulatedUser> users_;
  std::vector<SimulatedItem> items_;
  std::vector<std::vector<uint32_t>> items_by_category_;
  PowerLaw user_law_, item_law_;
  std::vector<PowerLaw> category_laws_;
  std::vector<double> hour_starts_;  // share of a day's impressions before each hour, 25 values

  Effects age_, gender_, city_, device_, interest_, activity_, taste_;
  Effects category_, brand_, creative_, price_, tag_, advertiser_, category_drift_;
  Effects scenario_, hour_, position_;

  Interests mean_{};
  std::array<Interests, kLanes> whitening_{};  // lower triangular
  std::array<double, kMaxTasks> intercepts_{};
};

}  // namespace ektm
