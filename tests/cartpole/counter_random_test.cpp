#include "cartpole/counter_random.h"

#include <gtest/gtest.h>

// Known answers from the authors' Random123 distribution (kat_vectors, philox4x32 10 rounds).
TEST(CounterRandom, PhiloxGivesThePublishedAnswers) {
  EXPECT_EQ(CounterRandom::philox({0, 0, 0, 0}, {0, 0}),
            (CounterRandom::Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(CounterRandom::philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                                  {0xffffffff, 0xffffffff}),
            (CounterRandom::Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(CounterRandom::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                                  {0xa4093822, 0x299f31d0}),
            (CounterRandom::Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterRandom, StreamsDifferInEveryCoordinateAndRepeat) {
  const auto first = [](uint64_t seed, uint32_t purpose, uint64_t index, uint32_t attempt) {
    return CounterRandom(seed, purpose, index, attempt).bits();
  };
  const uint32_t base = first(1, 2, 3, 4);
  EXPECT_EQ(base, first(1, 2, 3, 4));
  for (const uint32_t other :
       {first(2, 2, 3, 4), first(1, 3, 3, 4), first(1, 2, 4, 4), first(1, 2, 3, 5)})
    EXPECT_NE(base, other);
}

TEST(CounterRandom, UniformNumbersFillTheirRange) {
  CounterRandom random(7, 0, 0);
  double sum = 0, lowest = 4, highest = 2;
  constexpr int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double value = random.uniform(2, 4);
    sum += value;
    lowest = std::min(lowest, value);
    highest = std::max(highest, value);
  }
  EXPECT_NEAR(sum / n, 3.0, 0.01);  // five standard errors
  EXPECT_NEAR(lowest, 2.0, 0.001);
  EXPECT_NEAR(highest, 4.0, 0.001);
}
