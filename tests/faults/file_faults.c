#define _GNU_SOURCE
#undef _FORTIFY_SOURCE /* its headers define some of these functions */
#include "file_faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const struct fault {
  const char* name;
  int signal, error;
} faults[] = {{"kill", SIGKILL, 0},  {"stop", SIGSTOP, 0}, {"segv", SIGSEGV, 0},
              {"abort", SIGABRT, 0}, {"exit0", 0, 0},      {"short", 0, 0},
              {"enospc", 0, ENOSPC}, {"eio", 0, EIO},      {"erofs", 0, EROFS}};

static char text[PATH_MAX]; /* empty: nothing is counted */
static char only[PATH_MAX]; /* empty, or ",NAME,NAME," */
static const struct fault* fault;
static int first, count, log_file = -1;
static atomic_int counted;

#define REAL(name)                                       \
  __extension__({                                        \
    static __typeof__(name)* real;                       \
    if (!real) *(void**)&real = dlsym(RTLD_NEXT, #name); \
    real;                                                \
  })

void file_faults_arm(const char* path_text, int call, const char* what) {
  fault = NULL;
  for (size_t i = 0; i < sizeof faults / sizeof *faults; ++i)
    if (!strcmp(what, faults[i].name)) fault = &faults[i];
  if (!fault) {
    fprintf(stderr, "file_faults: no fault is called '%s'\n", what);
    abort();
  }
  first = call;
  count = 1;
  counted = 0;
  snprintf(text, sizeof text, "%s", path_text);
}

int file_faults_counted(void) { return counted; }

static int number(const char* name, int otherwise) {
  const char* value = getenv(name);
  return value ? atoi(value) : otherwise;
}

__attribute__((constructor)) static void read_environment(void) {
  const char *path = getenv("FAULT_PATH"), *what = getenv("FAULT_DO"), *log = getenv("FAULT_LOG"),
             *names = getenv("FAULT_ONLY");
  const int any = number("OMPI_COMM_WORLD_RANK", -1);
  if (!path || number("FAULT_RANK", any) != any) return;
  if (log) log_file = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (names) snprintf(only, sizeof only, ",%s,", names);
  file_faults_arm(path, number("FAULT_CALL", 0), what ? what : "kill");
  count = number("FAULT_COUNT", 1);
}

/* Counts a call and does what is due before it. Returns the fault that replaces it, or NULL. */
static const struct fault* due(const char* name, const char* path) {
  if (!*text || !path || !strstr(path, text)) return NULL;
  char listed[32];
  snprintf(listed, sizeof listed, ",%s,", name);
  if (*only && !strstr(only, listed)) return NULL;
  const int call = ++counted;
  if (log_file >= 0) dprintf(log_file, "%s %s\n", name, path);
  if (!first || call < first || (count && call >= first + count)) return NULL;
  if (fault->signal) raise(fault->signal);
  if (!strcmp(fault->name, "exit0")) _exit(0);
  return fault->signal ? NULL : fault;
}

/* The path of a descriptor, or of a name in a folder, until the thread's next call. */
static const char* path_of(int file) {
  static _Thread_local char path[2 * PATH_MAX];
  const int error = errno;
  char name[32];
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  const ssize_t length = readlink(name, path, PATH_MAX - 1);
  path[length > 0 ? length : 0] = '\0';
  errno = error;
  return path;
}

static const char* path_in(int folder, const char* name) {
  if (folder == AT_FDCWD || *name == '/') return name;
  char* path = (char*)path_of(folder);
  return strcat(strcat(path, "/"), name);
}

static const char* path_if_written(int file) {
  const int error = errno, flags = fcntl(file, F_GETFL);
  errno = error;
  return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY ? path_of(file) : NULL;
}

static const char* either(const char* from, const char* to) { return strstr(to, text) ? to : from; }

static int is_error(const struct fault* instead) {
  if (instead && instead->error) errno = instead->error;
  return instead && instead->error;
}

#define WRAP(name, parameters, arguments, path) \
  int name parameters { return is_error(due(#name, path)) ? -1 : REAL(name) arguments; }
WRAP(fsync, (int file), (file), path_of(file))
WRAP(fdatasync, (int file), (file), path_of(file))
WRAP(ftruncate, (int file, off_t size), (file, size), path_of(file))
WRAP(truncate, (const char* path, off_t size), (path, size), path)
WRAP(rename, (const char* from, const char* to), (from, to), either(from, to))
WRAP(renameat, (int source, const char* from, int folder, const char* to),
     (source, from, folder, to), path_in(folder, to))
WRAP(link, (const char* from, const char* to), (from, to), to)
WRAP(symlink, (const char* target, const char* path), (target, path), path)
WRAP(symlinkat, (const char* target, int folder, const char* path), (target, folder, path),
     path_in(folder, path))
WRAP(unlink, (const char* path), (path), path)
WRAP(unlinkat, (int folder, const char* path, int flags), (folder, path, flags),
     path_in(folder, path))
WRAP(remove, (const char* path), (path), path)
WRAP(mkdir, (const char* path, mode_t mode), (path, mode), path)
WRAP(rmdir, (const char* path), (path), path)

#define WRAP_WRITE(name, parameters, arguments, half)        \
  ssize_t name parameters {                                  \
    const struct fault* instead = due(#name, path_of(file)); \
    if (is_error(instead)) return -1;                        \
    return instead ? half : REAL(name) arguments;            \
  }
static ssize_t write_half(int file, const struct iovec* pieces, int left) {
  for (; left > 1 && !pieces->iov_len; --left) ++pieces;
  return REAL(write)(file, pieces->iov_base, (pieces->iov_len + 1) / 2);
}
WRAP_WRITE(write, (int file, const void* data, size_t size), (file, data, size),
           REAL(write)(file, data, (size + 1) / 2))
WRAP_WRITE(pwrite, (int file, const void* data, size_t size, off_t at), (file, data, size, at),
           REAL(pwrite)(file, data, (size + 1) / 2, at))
WRAP_WRITE(writev, (int file, const struct iovec* pieces, int n), (file, pieces, n),
           write_half(file, pieces, n))

int close(int file) {
  const struct fault* instead = due("close", path_if_written(file));
  const int closed = REAL(close)(file);
  return is_error(instead) ? -1 : closed;
}

int fclose(FILE* stream) {
  const struct fault* instead = due("fclose", path_if_written(fileno(stream)));
  const int closed = REAL(fclose)(stream);
  return is_error(instead) ? EOF : closed;
}

FILE* fopen(const char* path, const char* mode) {
  const int writes = strpbrk(mode, "wa+") != NULL;
  return is_error(due("fopen", writes ? path : NULL)) ? NULL : REAL(fopen)(path, mode);
}

#define WRAP_OPEN(name, parameters, arguments, path)                                   \
  int name parameters {                                                                \
    const int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); \
    va_list rest;                                                                      \
    va_start(rest, flags);                                                             \
    const mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;    \
    va_end(rest);                                                                      \
    return is_error(due(#name, writes ? path : NULL)) ? -1 : REAL(name) arguments;     \
  }
WRAP_OPEN(open, (const char* path, int flags, ...), (path, flags, mode), path)
WRAP_OPEN(openat, (int folder, const char* path, int flags, ...), (folder, path, flags, mode),
          path_in(folder, path))

/* The names under which programs built for large files know them. */
#define ALIAS(name, of) extern __typeof__(of) name __attribute__((alias(#of)));
ALIAS(open64, open)
ALIAS(openat64, openat)
ALIAS(fopen64, fopen)
ALIAS(pwrite64, pwrite)
ALIAS(ftruncate64, ftruncate)
ALIAS(truncate64, truncate)
