#include "program/agreement.h"

#include <gtest/gtest.h>
#include <mpi.h>

TEST(Agreement, AnErrorOfOneRankReachesAllRanks) {
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_NO_THROW(agree("", ExitCode::kData));
  for (int speaker = 0; speaker < size; ++speaker) {
    try {
      agree(rank >= speaker ? "rank " + std::to_string(rank) : "",
            rank == speaker ? ExitCode::kData : ExitCode::kIo);
      ADD_FAILURE() << "no error";
    } catch (const UserError& error) {
      EXPECT_EQ(error.what(), "rank " + std::to_string(speaker));
      EXPECT_EQ(error.code, ExitCode::kData);
    }
  }
}
