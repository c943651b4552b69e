// What the ranks of a node are doing, in memory that they share: a process that was stopped, or
// whose machine does not let it run, cannot say so itself.
#pragma once

#include <mpi.h>

#include <chrono>
#include <string>
#include <vector>

#include "program/mpi_session.h"

class Heartbeats {
 public:
  // Collective, as is the end, unless that comes by an exception.
  explicit Heartbeats(const MpiSession& mpi);
  ~Heartbeats();
  Heartbeats(const Heartbeats&) = delete;
  Heartbeats& operator=(const Heartbeats&) = delete;

  // This rank runs, and does this. To be called regularly, by one thread, which also asks below.
  void beat(const std::string& doing);

  // "rank 1 on node7 has stopped answering", for ranks of this node that have not beaten for
  // `seconds`; else what others of this node do that do something else; else "".
  std::string explain(double seconds) const;

  bool covers_all_ranks() const { return covers_all_ranks_; }

 private:
  struct Slot;
  struct Seen {
    uint64_t beats = 0;
    std::chrono::steady_clock::time_point changed = std::chrono::steady_clock::now();
  };
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<Slot*> slots_;  // by local rank
  std::vector<Seen> seen_;
  size_t mine_;
  std::string host_;
  bool covers_all_ranks_;
};
