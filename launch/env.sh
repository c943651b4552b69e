# Sourced by what starts ranks. Every exported variable carries its reason. `for_ranks` names those that a launcher must
# carry to other machines, NCCL's among them where the user set any.

# Containers and test machines run as root; there Open MPI asks for both.
if [[ $EUID == 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# The programs set their own thread count from the processors they may use; libraries must not add threads.
export OMP_NUM_THREADS=1
# Libraries of a bundle (tools/gpu_check.sh): for the programs, not for Python, which has its own.
if [[ -n ${PROGRAM_LIBRARY_PATH:-} ]]; then export LD_LIBRARY_PATH=$PROGRAM_LIBRARY_PATH; fi
# Network file systems without locks make HDF5 refuse to open files; no file here has two writers.
export HDF5_USE_FILE_LOCKING=FALSE

for_ranks=(OMP_NUM_THREADS HDF5_USE_FILE_LOCKING ${LD_LIBRARY_PATH:+LD_LIBRARY_PATH} "${!NCCL_@}")
