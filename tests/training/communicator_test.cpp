#include "training/communicator.h"

#include <gtest/gtest.h>

TEST(Communicator, SumsOverRanksWhateverTheLength) {
  const Communicator communicator;
  const int size = communicator.size(), rank = communicator.rank();
  for (const int64_t length :
       {0, 1, 3, 1000, 3'000'001}) {  // the last one travels in several pieces
    for (const auto type : {torch::kFloat32, torch::kFloat64, torch::kBFloat16}) {
      auto tensor = torch::full({length}, rank, type);
      communicator.sum(tensor);
      EXPECT_TRUE(torch::equal(tensor, torch::full({length}, size * (size - 1) / 2, type)));
    }
  }
}

TEST(Communicator, AllRanksHoldTheSameBitsAfterASum) {
  const Communicator communicator;
  torch::manual_seed(static_cast<uint64_t>(communicator.rank()));
  auto mine = torch::randn({100'003});
  communicator.sum(mine);
  auto first = mine.clone();
  communicator.broadcast(first);
  EXPECT_TRUE(torch::equal(mine, first));
}

TEST(Communicator, BroadcastsRankZerosBytes) {
  const Communicator communicator;
  auto tensor = torch::full({77}, communicator.rank() + 5, torch::kInt64);
  communicator.broadcast(tensor);
  EXPECT_TRUE(torch::equal(tensor, torch::full({77}, 5, torch::kInt64)));
}

TEST(Communicator, RefusesWhatItCannotSum) {
  const Communicator communicator;
  EXPECT_THROW(communicator.sum(torch::zeros({3}, torch::kInt64)), c10::Error);
  EXPECT_THROW(communicator.sum(torch::zeros({3, 3}).t().slice(0, 0, 2)), c10::Error);
}
