// Runs the tests on every rank; rank 0 prints, and any rank's failure fails the run.
#include <gtest/gtest.h>

#include <iostream>

#include "program/mpi_session.h"

const MpiSession* mpi_session = nullptr;  // for tests that ask who they are

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const MpiSession mpi;
  mpi_session = &mpi;
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (mpi.rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    struct FailurePrinter : testing::EmptyTestEventListener {
      void OnTestPartResult(const testing::TestPartResult& result) override {
        if (result.failed())
          std::cerr << result.file_name() << ":" << result.line_number() << ": " << result.message()
                    << std::endl;
      }
    };
    listeners.Append(new FailurePrinter);
  }
  int worst = RUN_ALL_TESTS();
  MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return worst;
}
