// Linked into programs that ThreadSanitizer watches. LibTorch's OpenMP runtime is not instrumented:
// this tells where its threads begin and end a parallel region.
#include <dlfcn.h>

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
}

namespace {

struct Region {
  void (*body)(void*);
  void* data;
  char begin, end;
};

void run_share(void* argument) {
  auto* region = static_cast<Region*>(argument);
  __tsan_acquire(&region->begin);
  region->body(region->data);
  __tsan_release(&region->end);
}

}  // namespace

// What `#pragma omp parallel` calls.
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags) {
  static const auto parallel =
      reinterpret_cast<decltype(&GOMP_parallel)>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  Region region{body, data, {}, {}};
  __tsan_release(&region.begin);
  parallel(run_share, &region, threads, flags);
  __tsan_acquire(&region.end);
}
