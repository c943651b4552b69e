#include "training/curriculum.h"

#include <gtest/gtest.h>

TEST(Curriculum, ReachesTheFullWindowAtThirtyFivePercent) {
  const Curriculum curriculum({}, 1024, 100000);
  EXPECT_EQ(curriculum.at(0).window, 128);
  EXPECT_EQ(curriculum.at(2499).window, 128);
  EXPECT_EQ(curriculum.at(2500).window, 192);
  EXPECT_EQ(curriculum.at(34999).window, 960);
  EXPECT_EQ(curriculum.at(35000).window, 1024);
  EXPECT_EQ(curriculum.at(10'000'000'000).window, 1024);
}

TEST(Curriculum, NeverExceedsItsEndNorGrowsWhenFixed) {
  const Curriculum odd({{10, 25, 10, 3}, false}, 1024, 100);
  EXPECT_EQ(odd.at(2).window, 10);
  EXPECT_EQ(odd.at(3).window, 20);
  EXPECT_EQ(odd.at(6).window, 25);
  EXPECT_EQ(odd.at(7000).window, 25);
  const Curriculum constant({{64, 0, 0, 0}, false}, 64, 10);
  EXPECT_EQ(constant.at(0).window, 64);
  EXPECT_EQ(constant.at(9).window, 64);
}

TEST(Curriculum, GrowsByDefaultFrom128) {
  const Curriculum growing({}, 256, 4000);
  EXPECT_EQ(growing.at(0).window, 128);
  EXPECT_EQ(growing.at(1399).window, 256);
  EXPECT_EQ(Curriculum({}, 64, 4000).at(0).window, 64);
}

TEST(Curriculum, TinyRunsStillHaveAValidCurriculum) {
  const Curriculum curriculum({}, 4, 3);
  EXPECT_GE(curriculum.at(0).window, 1);
  EXPECT_LE(curriculum.at(2).window, 4);
}

TEST(Curriculum, StagesBeginAtTheirBoundaries) {
  const Curriculum staged({{}, true}, 64, 1000);
  const std::pair<int64_t, size_t> corners[] = {{0, 0},   {49, 0},  {50, 1},  {119, 1}, {120, 2},
                                                {199, 2}, {200, 3}, {299, 3}, {300, 4}, {999, 4}};
  for (const auto& [step, stage] : corners) EXPECT_EQ(staged.at(step).stage, stage) << step;
  EXPECT_EQ(Curriculum({}, 64, 1000).at(500).stage, std::nullopt);
}
