/* Faults: a library that is loaded before libc, and that makes one call of a process fail.

   It counts the calls that change files under one folder: open with O_CREAT or O_TRUNC, write, truncate, fsync,
   rename, unlink, mkdir and rmdir. At the call of the chosen number, the process is killed, or the call fails
   with an error such as ENOSPC. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static atomic_long count;
static long chosen = -1;
static int fault; /* an error number; 0 kills the process */

/* Begin to count the calls under a folder; `number` is the call that fails, -1 for none. */
void faults_arm(const char *under, long number, int error) {
    strncpy(folder, under, sizeof folder - 1);
    chosen = number;
    fault = error;
    atomic_store(&count, 0);
}

long faults_count(void) { return atomic_load(&count); }

static int inside(const char *path) {
    size_t size = strlen(folder);
    return size && !strncmp(path, folder, size);
}

static int inside_file(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return inside(path);
}

/* Count a call; return whether it fails. */
static int fails(int counted) {
    if (!counted || atomic_fetch_add(&count, 1) != chosen) return 0;
    if (!fault) kill(getpid(), SIGKILL);
    errno = fault;
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        va_list more;                                                       \
        va_start(more, flags);                                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                       \
        if (fails(flags & (O_CREAT | O_TRUNC) && inside(path))) return -1;  \
        return NEXT(name)(path, flags, mode);                               \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                        \
    int name(int at, const char *path, int flags, ...) {                    \
        va_list more;                                                       \
        va_start(more, flags);                                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                       \
        if (fails(flags & (O_CREAT | O_TRUNC) && inside(path))) return -1;  \
        return NEXT(name)(at, path, flags, mode);                           \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size) {
    int counted = inside_file(file);
    if (counted && !fault && atomic_load(&count) == chosen)
        NEXT(write)(file, data, size / 2); /* the process is killed within this call */
    if (fails(counted)) return -1;
    return NEXT(write)(file, data, size);
}
ssize_t writev(int file, const struct iovec *parts, int number) {
    if (fails(inside_file(file))) return -1;
    return NEXT(writev)(file, parts, number);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    if (fails(inside_file(file))) return -1;
    return NEXT(pwrite64)(file, data, size, at);
}
int fsync(int file) {
    if (fails(inside_file(file))) return -1;
    return NEXT(fsync)(file);
}
int fdatasync(int file) {
    if (fails(inside_file(file))) return -1;
    return NEXT(fdatasync)(file);
}
int ftruncate(int file, off_t size) {
    if (fails(inside_file(file))) return -1;
    return NEXT(ftruncate)(file, size);
}
int ftruncate64(int file, off64_t size) {
    if (fails(inside_file(file))) return -1;
    return NEXT(ftruncate64)(file, size);
}
int rename(const char *from, const char *to) {
    if (fails(inside(to))) return -1;
    return NEXT(rename)(from, to);
}
int renameat(int from_at, const char *from, int to_at, const char *to) {
    if (fails(inside(to))) return -1;
    return NEXT(renameat)(from_at, from, to_at, to);
}
int unlink(const char *path) {
    if (fails(inside(path))) return -1;
    return NEXT(unlink)(path);
}
int unlinkat(int at, const char *path, int flags) {
    if (fails(inside(path))) return -1;
    return NEXT(unlinkat)(at, path, flags);
}
int mkdir(const char *path, mode_t mode) {
    if (fails(inside(path))) return -1;
    return NEXT(mkdir)(path, mode);
}
int rmdir(const char *path) {
    if (fails(inside(path))) return -1;
    return NEXT(rmdir)(path);
}
