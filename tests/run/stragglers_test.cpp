#include "run/stragglers.h"

#include <gtest/gtest.h>

namespace {

Stragglers four_ranks() { return Stragglers({"a", "a", "b", "b"}); }

}  // namespace

TEST(Stragglers, OneIsNamedWithinTwentySteps) {
  auto stragglers = four_ranks();
  EXPECT_TRUE(stragglers.observe({0.02, 0.02, 0.02, 0.02}, 10).empty());
  EXPECT_TRUE(stragglers.observe({0.02, 0.02, 0.031, 0.02}, 10).empty());
  const auto lines = stragglers.observe({0.02, 0.02, 0.031, 0.02}, 10);
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0],
            "warning: rank 2 on b is slow: its steps take 31.0 ms, the others' 20.0 ms, and all "
            "wait for it");
}

TEST(Stragglers, OneIsNamedAgainOnlyAfterItHasRecovered) {
  auto stragglers = four_ranks();
  size_t lines = 0;
  for (int i = 0; i < 50; ++i) lines += stragglers.observe({0.04, 0.02, 0.02, 0.02}, 10).size();
  EXPECT_EQ(lines, 1U);
  for (int i = 0; i < 10; ++i) lines += stragglers.observe({0.02, 0.02, 0.02, 0.02}, 10).size();
  for (int i = 0; i < 5; ++i) lines += stragglers.observe({0.04, 0.02, 0.02, 0.02}, 10).size();
  EXPECT_EQ(lines, 2U);
}

TEST(Stragglers, HiccupsAndTinyStepsAreNoStragglers) {
  auto stragglers = four_ranks();
  for (int i = 0; i < 100; ++i) {
    const double once = i % 2 ? 0.05 : 0.02;
    EXPECT_TRUE(stragglers.observe({0.02, once, 0.02, 0.02}, 10).empty());
    EXPECT_TRUE(four_ranks().observe({1e-4, 3e-4, 1e-4, 1e-4}, 10).empty());
  }
}

TEST(Stragglers, OfTwoRanksTheSlowerIsNamed) {
  Stragglers stragglers({"a", "b"});
  stragglers.observe({0.02, 0.05}, 10);
  EXPECT_EQ(stragglers.observe({0.02, 0.05}, 10).size(), 1U);
}
