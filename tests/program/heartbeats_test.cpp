#include "program/heartbeats.h"

#include <gtest/gtest.h>

#include <thread>

extern const MpiSession* mpi_session;

TEST(Heartbeats, NameWhoHasStoppedOrDoesSomethingElse) {
  Heartbeats heartbeats(*mpi_session);
  EXPECT_TRUE(heartbeats.covers_all_ranks());
  const int rank = mpi_session->rank(), last = mpi_session->size() - 1;
  // The last rank stops beating, and rank 0 is at something else.
  for (int i = 0; i < 8; ++i) {
    if (rank != last || last == 0) heartbeats.beat(rank == 0 ? "saving" : "training");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  const std::string stopped = heartbeats.explain(0.3), late = heartbeats.explain(60);
  if (rank != last) {
    EXPECT_TRUE(stopped.starts_with("rank " + std::to_string(last) + " on ")) << stopped;
    EXPECT_TRUE(stopped.ends_with(" has stopped answering")) << stopped;
  }
  if (rank == 1 && rank != last) {
    EXPECT_NE(late.find("is saving"), std::string::npos) << late;
  }
  if (last == 0) {
    EXPECT_EQ(stopped + late, "");
  }
  MPI_Barrier(MPI_COMM_WORLD);
}
