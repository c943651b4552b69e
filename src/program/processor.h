// Whether this processor runs what was compiled for x86-64-v3 and x86-64-v4.
#pragma once

#ifdef __x86_64__
inline bool has_avx2() { return __builtin_cpu_supports("x86-64-v3"); }
inline bool has_avx512() { return __builtin_cpu_supports("x86-64-v4"); }
#else
inline bool has_avx512() { return false; }
#endif
