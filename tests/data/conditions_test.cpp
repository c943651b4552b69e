#include "data/conditions.h"

#include <gtest/gtest.h>

#include <fstream>

#include "program/exit_code.h"
#include "temporary_folder.h"

namespace {

struct ConditionsFile {
  TemporaryFolder folder;
  Config base;

  std::vector<Condition> read(const std::string& text) {
    const auto path = folder.path / "conditions.yaml";
    std::ofstream(path) << text;
    return read_conditions(path, base);
  }
  // The message that the text is refused with.
  std::string refusal(const std::string& text) {
    try {
      read(text);
    } catch (const UserError& error) {
      EXPECT_EQ(error.code, ExitCode::kConfiguration);
      return error.what();
    }
    return "";
  }
};

}  // namespace

TEST(Conditions, OnlyWhatIsNamedIsImperfect) {
  ConditionsFile file;
  file.base.world.cart_friction = {0.1, 1.0};
  file.base.world.sensor_noise = {1, 1, 1, 1};
  file.base.world.cart_mass = {3.0, 4.0};
  const auto conditions = file.read("perfect:\nslow motor:\n  world.motor_gain: [0.5, 0.75]\n");
  ASSERT_EQ(conditions.size(), 2U);
  EXPECT_EQ(conditions[0].name, "perfect");
  const Trials perfect = conditions[0].trials(20, 1024), slow = conditions[1].trials(20, 1024);
  EXPECT_EQ(perfect.sensor_noise, SensorNoise{});
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(perfect.plants[i].cart_friction, 0.0);
    EXPECT_EQ(perfect.plants[i].motor_gain, 1.0);
    EXPECT_GE(slow.plants[i].motor_gain, 0.5);
    EXPECT_LE(slow.plants[i].motor_gain, 0.75);
    EXPECT_GE(perfect.plants[i].cart_mass, 3.0);  // the plants stay the dataset's
    EXPECT_EQ(perfect.plants[i].cart_mass, slow.plants[i].cart_mass);
    EXPECT_EQ(perfect.disturbances[i].force_noise, 0.0);
    EXPECT_EQ(perfect.disturbances[i].kick_step, -1);
  }
  EXPECT_EQ(slow.nominal.motor_gain, 0.625);
}

TEST(Conditions, AChangeReplacesWhatItNames) {
  ConditionsFile file;
  const auto conditions =
      file.read("jump:\n  change: {step: 7, world.pole_mass: [2, 3]}\n  contexts: [1, 4]\n");
  const Trials trials = conditions[0].trials(5, 1024);
  ASSERT_EQ(trials.changed_plants.size(), 5U);
  EXPECT_EQ(trials.change_step, 7U);
  EXPECT_EQ(conditions[0].contexts, (std::vector<int64_t>{1, 4}));
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_LE(trials.plants[i].pole_mass, 0.5);
    EXPECT_GE(trials.changed_plants[i].pole_mass, 2.0);
    EXPECT_EQ(trials.changed_plants[i].cart_mass, trials.plants[i].cart_mass);
  }
  // The pole falls faster from the period on in which gravity pulls more of it.
  Trials one = trials.slice(0, 1);
  one.starts[0] = {0, 0, 3.0, 0};
  const Policy push = [](const Moment&, std::vector<double>& force, std::vector<uint8_t>&) {
    force[0] = 5.0;
  };
  const auto changed = play(push, one, {20, 20}).recording.state;
  one.changed_plants.clear();
  const auto same = play(push, one, {20, 20}).recording.state;
  EXPECT_TRUE(std::equal(same.begin(), same.begin() + 8 * 4, changed.begin()));
  EXPECT_NE(same[8 * 4 + 1], changed[8 * 4 + 1]);
}

TEST(Conditions, KicksComeLateEnoughToHitABalancedPole) {
  ConditionsFile file;
  const auto conditions = file.read("kicks:\n  world.kick_share: 1\n");
  for (const auto& disturbance : conditions[0].trials(50, 1024).disturbances) {
    EXPECT_GE(disturbance.kick_step, 128);
    EXPECT_LE(disturbance.kick_step, 512);
  }
}

TEST(Conditions, BadFilesAreRefusedByLineAndKey) {
  ConditionsFile file;
  const auto expect = [&](const std::string& text, const std::string& part) {
    EXPECT_NE(file.refusal(text).find(part), std::string::npos) << file.refusal(text);
  };
  expect("a:\n  world.gravity: 3\n", "conditions.yaml:2: world.gravity is none of");
  expect("a:\n  world.motor_gain: [1]\n", "conditions.yaml:2: world.motor_gain: expected a list");
  expect("a:\n  world.motor_gain: [2, 1]\n", "the low end is above the high end");
  expect("a:\na:\n", "conditions.yaml:2: a appears twice");
  expect("a:\n  change: {world.motor_gain: [1, 2]}\n", "change needs a step");
  expect("a:\n  change: {step: 5, world.delay: [1, 2]}\n", "is no number of a plant that can");
  expect("a:\n  contexts: [0]\n", "contexts: expected whole numbers above 0");
  expect("a: [\n", "conditions.yaml:");
  expect("", "is not a list of conditions");
  EXPECT_THROW(read_conditions(file.folder.path / "nothing.yaml", file.base), UserError);
}
