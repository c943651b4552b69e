#include "program.h"

#include <iostream>

void agree(const std::string& error, ExitCode code) {
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const int mine = error.empty() ? size : rank;
  int speaker = size, exit_code = static_cast<int>(code);
  MPI_Allreduce(&mine, &speaker, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  if (speaker == size) return;
  MPI_Bcast(&exit_code, 1, MPI_INT, speaker, MPI_COMM_WORLD);
  std::string text = error;
  int length = static_cast<int>(text.size());
  MPI_Bcast(&length, 1, MPI_INT, speaker, MPI_COMM_WORLD);
  text.resize(static_cast<size_t>(length));
  MPI_Bcast(text.data(), length, MPI_CHAR, speaker, MPI_COMM_WORLD);
  throw UserError(static_cast<ExitCode>(exit_code), text);
}

int run_program(int argc, char** argv, const std::string& description,
                const std::function<ExitCode(const Config&, const MpiSession&)>& body) {
  const std::string name = std::string(argv[0]).substr(std::string(argv[0]).find_last_of('/') + 1);
  Config config;
  try {
    bool help = false;
    config = parse_config(argc, argv, description, help);
    if (help) return 0;
  } catch (const UserError& error) {
    // Every rank has the same complaint; MPI is started only to know which one shall speak.
    const MpiSession mpi;
    if (mpi.rank() == 0) std::cerr << name << ": " << error.what() << std::endl;
    return static_cast<int>(error.code);
  }

  const MpiSession mpi;
  try {
    return static_cast<int>(body(config, mpi));
  } catch (const UserError& error) {
    if (mpi.rank() == 0) std::cerr << name << ": " << error.what() << std::endl;
    return static_cast<int>(error.code);
  } catch (const std::exception& error) {
    std::cerr << name << ": rank " << mpi.rank() << ": " << error.what() << std::endl;
    MPI_Abort(MPI_COMM_WORLD, 1);
    return 1;
  }
}
