/* Spoils sums of gradients on one rank. A program gets it by LD_PRELOAD, and what to do from the
 * environment:
 *   SUM_FAULT_RANK   the rank
 *   SUM_FAULT_CALL   number of the first sum that is spoiled, from 1
 *   SUM_FAULT_COUNT  how many are from there on; none: 1
 *   SUM_FAULT_DO     nan: one is in what the rank adds, so that all ranks get it;
 *                    flip: a bit of what the rank gets, so that its replica diverges;
 *                    loss: a hundred is in what the rank adds to the losses, not the gradients
 */
#include <math.h>
#include <mpi.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int number(const char* name, int otherwise) {
  const char* value = getenv(name);
  return value ? atoi(value) : otherwise;
}

/* Gradients are sums of more than 100 floats, losses of 4. */
static int is_spoiled(const char* what, int count, MPI_Datatype type, MPI_Comm communicator) {
  static int sums;
  int rank;
  if (type != MPI_FLOAT || (strcmp(what, "loss") ? count <= 100 : count != 4)) return 0;
  MPI_Comm_rank(communicator, &rank);
  const int since = ++sums - number("SUM_FAULT_CALL", 0);
  return rank == number("SUM_FAULT_RANK", -1) && since >= 0 && since < number("SUM_FAULT_COUNT", 1);
}

int MPI_Allreduce(const void* from, void* into, int count, MPI_Datatype type, MPI_Op operation,
                  MPI_Comm communicator) {
  const char* wanted = getenv("SUM_FAULT_DO");
  const char* what = wanted && is_spoiled(wanted, count, type, communicator) ? wanted : "";
  float* mine = from == MPI_IN_PLACE ? into : (float*)from;
  if (!strcmp(what, "nan")) *mine = NAN;
  if (!strcmp(what, "loss")) *mine += 100;
  const int code = PMPI_Allreduce(from, into, count, type, operation, communicator);
  if (!strcmp(what, "flip")) *(uint32_t*)into ^= UINT32_C(1) << 20;
  return code;
}
