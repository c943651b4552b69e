#include "program/agreement.h"

#include <mpi.h>

#include <filesystem>

namespace {

int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

int world_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

}  // namespace

void agree(const std::string& error, ExitCode code) {
  const int size = world_size(), mine = error.empty() ? size : world_rank();
  int lowest = size, exit_code = static_cast<int>(code);
  MPI_Allreduce(&mine, &lowest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  if (lowest == size) return;
  MPI_Bcast(&exit_code, 1, MPI_INT, lowest, MPI_COMM_WORLD);
  std::string text = error;
  broadcast_text(text, lowest);
  throw AgreedError(static_cast<ExitCode>(exit_code), text);
}

void agree_on_errors(const std::function<void()>& body) {
  std::string error;
  auto code = ExitCode::kIo;
  try {
    body();
  } catch (const UserError& refusal) {
    error = refusal.what();
    code = refusal.code;
  } catch (const std::filesystem::filesystem_error& failure) {
    error = failure.what();
  }
  agree(error, code);
}

void broadcast_text(std::string& text, int from) {
  int length = static_cast<int>(text.size());
  MPI_Bcast(&length, 1, MPI_INT, from, MPI_COMM_WORLD);
  text.resize(static_cast<size_t>(length));
  MPI_Bcast(text.data(), length, MPI_CHAR, from, MPI_COMM_WORLD);
}

std::vector<std::string> gather_texts(const std::string& mine) {
  const bool root = world_rank() == 0;
  const auto size = static_cast<size_t>(world_size());
  const int length = static_cast<int>(mine.size());
  std::vector<int> lengths(size), offsets(size);
  MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, MPI_COMM_WORLD);
  for (size_t rank = 1; rank < size; ++rank) offsets[rank] = offsets[rank - 1] + lengths[rank - 1];
  std::string joined(root ? static_cast<size_t>(offsets.back() + lengths.back()) : 0, '\0');
  MPI_Gatherv(mine.data(), length, MPI_CHAR, joined.data(), lengths.data(), offsets.data(),
              MPI_CHAR, 0, MPI_COMM_WORLD);
  std::vector<std::string> texts;
  for (size_t rank = 0; root && rank < size; ++rank)
    texts.push_back(
        joined.substr(static_cast<size_t>(offsets[rank]), static_cast<size_t>(lengths[rank])));
  return texts;
}
