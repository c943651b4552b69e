#!/usr/bin/env bash
# Collects what tools/gpu_check.sh needs on a machine that has PyTorch and a GPU but neither this
# project's packages nor a way to install them: the programs, and every shared library they use
# except those of PyTorch and the C library. Writes build/gpu_bundle.
#   tools/gpu_bundle.sh          after cmake --preset gpu -DBUILD_TESTING=ON and the build
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
build=build/gpu
bundle=build/gpu_bundle
rm -rf $bundle
mkdir -p $bundle/tests $bundle/lib $bundle/usr/bin $bundle/usr/share
cp $build/{generate_trajectories,train_gpt2,evaluate_policy,analyze_policy} $bundle/
cp $build/tests/{gpu_tests,step_time,closed_loop_speed} $bundle/tests/
strip $bundle/{generate_trajectories,train_gpt2,evaluate_policy,analyze_policy} $bundle/tests/*

# Open MPI finds its plug-ins and texts below OPAL_PREFIX; Open MPI 5 includes a separate launcher,
# PRRTE, with different names.
plugins=$(ompi_info --path libdir --parsable | cut -d: -f3)
mkdir -p "$bundle$plugins"
cp -a "$plugins"/. "$bundle$plugins/"
cp -r "$(ompi_info --path pkgdatadir --parsable | cut -d: -f3)" $bundle/usr/share/openmpi
for tool in mpirun orted prterun prted; do
  if path=$(command -v $tool); then cp -L "$path" $bundle/usr/bin/; fi
done
if [[ -d /usr/share/prte ]]; then cp -r /usr/share/prte $bundle/usr/share/; fi

find $bundle -type f \( -perm -u+x -o -name '*.so*' \) -print0 | xargs -0 -n 1 ldd 2>/dev/null |
  awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -v -E -e '/site-packages/' \
    -e '/(ld-linux|libc|libm|libdl|librt|libpthread|libutil|libresolv|libstdc\+\+|libgcc_s)[-.]' |
  xargs -I{} cp -L {} $bundle/lib/
echo "$bundle: $(du -sm $bundle | cut -f1) MB"
