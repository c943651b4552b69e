#include "training/replica_check.h"

#include <gtest/gtest.h>

#include "cartpole/counter_random.h"

TEST(ReplicaCheck, EveryFlippedBitNamesItsRank) {
  const Communicator communicator;
  const int ranks = communicator.size();
  torch::manual_seed(3);
  const auto values = torch::randn({10'000}), moments = torch::randn({3, 7});
  CounterRandom random(5, 0, 0);
  EXPECT_TRUE(differing_replicas({values, moments}, communicator).empty());
  for (int trial = 0; trial < 100; ++trial) {
    const auto guilty = static_cast<int>(random.bits() % static_cast<uint64_t>(ranks));
    const bool in_moments = random.bits() % 2 != 0;
    const auto& victim = in_moments ? moments : values;
    const auto at = static_cast<int64_t>(random.bits() % static_cast<uint64_t>(victim.numel()));
    const auto bit = static_cast<int>(random.bits() % 32);
    auto* word = static_cast<uint32_t*>(victim.data_ptr()) + at;
    if (communicator.rank() == guilty) *word ^= uint32_t{1} << bit;
    const auto found = differing_replicas({values, moments}, communicator);
    if (communicator.rank() == guilty) *word ^= uint32_t{1} << bit;
    if (ranks == 1)
      EXPECT_TRUE(found.empty());
    else if (ranks == 2)  // nobody is in the majority
      EXPECT_EQ(found, std::vector<int>{1});
    else
      EXPECT_EQ(found, std::vector<int>{guilty});
  }
  EXPECT_TRUE(differing_replicas({values, moments}, communicator).empty());
}
