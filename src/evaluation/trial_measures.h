// What a trial shows beyond success, next to its shadow: the expert that knows each plant and its
// true state, asked in every period what it would do there.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cartpole/rollout.h"

// Loose success: |theta| < 0.3 rad and |theta_dot| < 1 rad/s over the last 1.25 s, wherever the
// cart is.
constexpr double kLooseAngle = 0.3, kLooseRate = 1.0, kLooseSeconds = 1.25;

// Range k of control steps t has std::bit_width(t) = k: 0, 1, 2 and 3, 4 to 7, ... The last one
// holds the end of the longest trial that evaluation.steps allows.
constexpr size_t kStepRanges = 21;

// Why a trial failed: the first that applies. Upright is |theta| < kSuccessAngle; the track was
// left upright if the pole was so at some time in the last second before; a pole that fell has
// |theta| >= kLooseAngle at the end.
inline constexpr std::array kFailures{"left the track swinging up", "left the track upright",
                                      "never upright", "fell and did not return",
                                      "not still at the end"};

// As for success, states count that end a period. The track has been left for good.
struct TrialMeasures {
  bool loose_success = false;
  bool fallen = false;  // |theta| >= kLooseAngle at the end
  double reward = 0.0;  // swing_up_reward, mean per period; 0 off the track
  // The first and the last period after which the pole is upright and the cart on the track; -1:
  // none.
  int32_t upright_step = -1, last_upright_step = -1;
  uint32_t longest_hold = 0;  // periods without a break within kSuccess*, on the track
  // Over the periods that begin on the track, as for the trial itself.
  int32_t shadow_first_switch = -1;
  uint32_t shadow_switches = 0;
  // Their number by the shadow's mode, and of those in which the controller's mode is the same.
  std::array<uint32_t, 2> shadow_steps{}, agreed_steps{};
  // N^2, by range of steps: sum of the squared difference between the forces of controller (within
  // the limit) and shadow.
  std::array<double, kStepRanges> squared_force_error{};
};

struct MeasuredTrial : TrialOutcome {
  TrialMeasures measures;

  double effort(double period) const;  // N^2 s, of the command sent while on the track
  // Of the controller's modes, the shadow's being the truth: the mean over those that occur.
  double mode_accuracy() const;
  uint32_t spurious_switches() const;  // more than the shadow's
  // One of kFailures, "" for a success.
  const char* failure(const PlantConstants& constants) const;
};

// The reward of dm_control's cartpole swingup, in [0, 1]: suite/cartpole.py and utils/rewards.py,
// https://github.com/google-deepmind/dm_control. `control` is the force over its limit.
double swing_up_reward(const CartPoleState& state, double control);

// Measures n trials that are played together.
class TrialMeter {
 public:
  TrialMeter(size_t n, const PlantConstants& constants);

  // Call once per period, in order.
  void add(const PeriodEnd& period, const std::vector<double>& shadow_force,
           const std::vector<uint8_t>& shadow_mode);
  TrialMeasures measures(size_t i) const;

 private:
  struct Running {
    TrialMeasures measures{};
    bool on_track = true;
    uint32_t hold = 0;
    uint8_t shadow_mode = 0;           // of the period before
    int32_t last_loosely_fallen = -1;  // the last period after which loose success does not hold
  };

  PlantConstants constants_;
  int32_t periods_ = 0;
  std::vector<Running> trials_;
};
