#include "program/heartbeats.h"

#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <new>

#include "program/host_name.h"

struct Heartbeats::Slot {
  int rank;
  std::atomic<uint64_t> beats;
  std::array<std::atomic<uint64_t>, 12> doing;  // text, ends with a zero

  void say(const std::string& text) {
    std::array<uint64_t, 12> words{};
    std::memcpy(words.data(), text.data(), std::min(text.size(), sizeof words - 1));
    for (size_t i = 0; i < words.size(); ++i) doing[i].store(words[i], std::memory_order_relaxed);
  }
  std::string said() const {
    std::array<uint64_t, 12> words{};
    for (size_t i = 0; i < words.size(); ++i) words[i] = doing[i].load(std::memory_order_relaxed);
    return std::string(reinterpret_cast<const char*>(words.data()));
  }
};

Heartbeats::Heartbeats(const MpiSession& mpi)
    : mine_(static_cast<size_t>(mpi.local_rank())),
      host_(host_name()),
      covers_all_ranks_(mpi.local_size() == mpi.size()) {
  void* own = nullptr;
  MPI_Win_allocate_shared(sizeof(Slot), 1, MPI_INFO_NULL, mpi.node(), &own, &window_);
  new (own) Slot{mpi.rank(), {}, {}};
  MPI_Barrier(mpi.node());
  for (int rank = 0; rank < mpi.local_size(); ++rank) {
    MPI_Aint size = 0;
    int unit = 0;
    void* slot = nullptr;
    MPI_Win_shared_query(window_, rank, &size, &unit, &slot);
    slots_.push_back(static_cast<Slot*>(slot));
  }
  seen_.resize(slots_.size());
}

Heartbeats::~Heartbeats() {
  // An error of this rank alone must reach MPI_Abort, and not wait here for the others.
  if (!std::uncaught_exceptions()) MPI_Win_free(&window_);
}

void Heartbeats::beat(const std::string& doing) {
  slots_[mine_]->say(doing);
  ++slots_[mine_]->beats;
  for (size_t i = 0; i < slots_.size(); ++i)
    if (const uint64_t beats = slots_[i]->beats; beats != seen_[i].beats)
      seen_[i] = {beats, std::chrono::steady_clock::now()};
}

std::string Heartbeats::explain(double seconds) const {
  const auto now = std::chrono::steady_clock::now();
  std::string stopped, elsewhere;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (i == mine_) continue;
    const std::string who = "rank " + std::to_string(slots_[i]->rank) + " on " + host_;
    if (std::chrono::duration<double>(now - seen_[i].changed).count() > seconds)
      stopped += (stopped.empty() ? "" : ", ") + who + " has stopped answering";
    else if (const auto doing = slots_[i]->said(); doing != slots_[mine_]->said())
      elsewhere += (elsewhere.empty() ? "" : ", ") + who + " is " + doing;
  }
  return stopped.empty() ? elsewhere : stopped;
}
