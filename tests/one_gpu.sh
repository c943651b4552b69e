#!/usr/bin/env bash
# Runs several ranks on one GPU, for tests of correctness and never of speed: NCCL treats them as
# ranks of different machines.
#   launch/local.sh 2 tests/one_gpu.sh PROGRAM [ARGUMENT ...]
export NCCL_HOSTID=$OMPI_COMM_WORLD_RANK NCCL_SOCKET_IFNAME=lo
exec "$@"
