#include "curriculum.h"

#include <gtest/gtest.h>

TEST(Curriculum, ReachesTheFullWindowAtThirtyFivePercent) {
  const auto points = resolve_curriculum({}, 1024, 100000);
  EXPECT_EQ(window_length(points, 0), 128);
  EXPECT_EQ(window_length(points, 2499), 128);
  EXPECT_EQ(window_length(points, 2500), 192);
  EXPECT_EQ(window_length(points, 34999), 960 + 0 * 64);
  EXPECT_EQ(window_length(points, 35000), 1024);
  EXPECT_EQ(window_length(points, 10'000'000'000), 1024);
}

TEST(Curriculum, NeverPassesItsEndNorGrowsWhenToldToStay) {
  const PointsCurriculumConfig odd{10, 25, 10, 3};
  EXPECT_EQ(window_length(odd, 3), 20);
  EXPECT_EQ(window_length(odd, 6), 25);
  EXPECT_EQ(window_length(odd, 7000), 25);
  const auto constant = resolve_curriculum({64, 0, 0, 0}, 64, 10);
  EXPECT_EQ(window_length(constant, 0), 64);
  EXPECT_EQ(window_length(constant, 9), 64);
}

TEST(Curriculum, TinyRunsStillHaveAValidCurriculum) {
  const auto points = resolve_curriculum({}, 4, 3);
  EXPECT_GE(window_length(points, 0), 1);
  EXPECT_LE(window_length(points, 2), 4);
}
