// Starts MPI and ends it; who this rank is. Construct once, before anything collective.
#pragma once

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

class MpiSession {
 public:
  MpiSession() {
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided_);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node_);
    MPI_Comm_rank(node_, &local_rank_);
    MPI_Comm_size(node_, &local_size_);

    // A launcher may have bound each rank to processors of its own, or left all ranks of the node
    // the same ones.
    cpu_set_t mine;
    sched_getaffinity(0, sizeof mine, &mine);
    std::vector<cpu_set_t> all(static_cast<size_t>(local_size_));
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, node_);
    const auto sharers = std::count_if(
        all.begin(), all.end(), [&](const cpu_set_t& other) { return CPU_EQUAL(&mine, &other); });
    processors_ = std::max(1, CPU_COUNT(&mine) / static_cast<int>(sharers));
    // Slurm need not bind a task to what it was granted.
    const char* granted = std::getenv("SLURM_CPUS_PER_TASK");
    if (granted && std::atoi(granted) > 0) processors_ = std::min(processors_, std::atoi(granted));
    // Alike on all ranks: the number of threads decides how sums round.
    MPI_Allreduce(MPI_IN_PLACE, &processors_, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  }
  ~MpiSession() {
    MPI_Comm_free(&node_);
    MPI_Finalize();
  }
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int local_rank() const { return local_rank_; }  // among the ranks of this node
  int local_size() const { return local_size_; }
  MPI_Comm node() const { return node_; }         // these ranks
  int processors() const { return processors_; }  // that every rank can count on

 private:
  MPI_Comm node_ = MPI_COMM_NULL;
  int provided_ = 0, rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1, processors_ = 1;
};
