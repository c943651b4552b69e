# For 64-bit Arm, on another kind of machine: tools/check_aarch64.sh lays the sysroot.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
get_filename_component(CMAKE_SYSROOT
  ${CMAKE_CURRENT_LIST_DIR}/../build/aarch64_root/sysroot ABSOLUTE)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-L;${CMAKE_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
foreach(kind LIBRARY INCLUDE PACKAGE)
  set(CMAKE_FIND_ROOT_PATH_MODE_${kind} ONLY)
endforeach()

# What CMake would ask mpicxx, h5cc and pkg-config; those on the path speak for this machine.
set(libraries ${CMAKE_SYSROOT}/usr/lib/aarch64-linux-gnu)
set(MPI_SKIP_COMPILER_WRAPPER ON)
set(PKG_CONFIG_EXECUTABLE "" CACHE FILEPATH "")
set(MPI_CXX_HEADER_DIR ${libraries}/openmpi/include CACHE PATH "")
set(MPI_CXX_LIB_NAMES mpi CACHE STRING "")
set(MPI_mpi_LIBRARY ${libraries}/openmpi/lib/libmpi.so CACHE FILEPATH "")
set(HDF5_C_COMPILER_EXECUTABLE "" CACHE FILEPATH "")
set(HDF5_ROOT /usr/lib/aarch64-linux-gnu/hdf5/serial)
