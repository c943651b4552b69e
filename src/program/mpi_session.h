// Starts MPI and ends it; who this rank is. Construct once, before anything collective.
#pragma once

#include <mpi.h>

#include <filesystem>

class MpiSession {
 public:
  MpiSession();
  ~MpiSession();
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
  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1, processors_ = 1;
};

// How many processors the quota of this process's control groups (a container's --cpus) amounts to,
// rounded up; 0 without one. The arguments: where Linux mounts them, and what names this process's.
int processors_of_quota(const std::filesystem::path& mounted = "/sys/fs/cgroup",
                        const std::filesystem::path& own = "/proc/self/cgroup");
