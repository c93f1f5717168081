/* Preloaded: at the n-th call that changes a file below a folder something happens. `preloaded.py` says what.

   Counted are calls by which a file is made, written, synced, named or removed. Built with `cc -shared -fPIC`. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { NOTHING, SIGNAL, FAIL, MOVE, JUMP };

static char folder[4096], other[4096];
static long at, seen;
static int action, value, lasting;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Counting begins anew. `to` is the folder's new name for MOVE, the clock's file for JUMP. */
void fault_arm(const char *below, long number, int what, int with, int lasts, const char *to) {
    snprintf(folder, sizeof folder, "%s", below);
    snprintf(other, sizeof other, "%s", to);
    at = number, action = what, value = with, lasting = lasts, seen = 0;
}

long fault_seen(void) { return seen; }

static void jump(void) {
    char text[32];
    int length = snprintf(text, sizeof text, "%+d\n", value);
    int clock = REAL(open)(other, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (clock < 0 || REAL(write)(clock, text, length) != length) abort();
    close(clock);
}

/* Whether the call is to fail. */
static int fails(void) {
    seen++;
    if (seen != at && !(lasting && at && seen > at)) return 0;
    if (action == FAIL) {
        errno = value;
        return 1;
    }
    if (seen != at) return 0;
    if (action == SIGNAL) raise(value);
    if (action == MOVE) REAL(rename)(folder, other);
    if (action == JUMP) jump();
    return 0;
}

static int below(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int named(int at_folder, const char *path) {
    char whole[8192] = "", link[64];
    if (!*folder) return 0;
    if (*path == '/') return below(path) && fails();
    if (at_folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", at_folder);
    ssize_t length = readlink(link, whole, 4096);
    if (length < 0) return 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return below(whole) && fails();
}

static int opened(int descriptor) {
    char link[64], path[4096];
    if (!*folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path) && fails();
}

#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))
#define OPEN(name)                                                                         \
    int name(const char *path, int flags, ...) {                                           \
        va_list more;                                                                      \
        va_start(more, flags);                                                             \
        mode_t mode = va_arg(more, mode_t);                                                \
        va_end(more);                                                                      \
        return CHANGES(flags) && named(AT_FDCWD, path) ? -1 : REAL(name)(path, flags, mode); \
    }
#define OPENAT(name)                                                                       \
    int name(int where, const char *path, int flags, ...) {                                \
        va_list more;                                                                      \
        va_start(more, flags);                                                             \
        mode_t mode = va_arg(more, mode_t);                                                \
        va_end(more);                                                                      \
        return CHANGES(flags) && named(where, path) ? -1 : REAL(name)(where, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define BY_DESCRIPTOR(type, name, parameters, arguments) \
    type name parameters { return opened(fd) ? -1 : REAL(name) arguments; }
BY_DESCRIPTOR(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n))
BY_DESCRIPTOR(ssize_t, pwrite, (int fd, const void *data, size_t n, off_t place), (fd, data, n, place))
BY_DESCRIPTOR(ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t place), (fd, data, n, place))
BY_DESCRIPTOR(int, fsync, (int fd), (fd))
BY_DESCRIPTOR(int, fdatasync, (int fd), (fd))
BY_DESCRIPTOR(int, ftruncate, (int fd, off_t length), (fd, length))
BY_DESCRIPTOR(int, ftruncate64, (int fd, off64_t length), (fd, length))

#define ALLOCATE(name, kind)                                                                      \
    int name(int fd, kind first, kind length) {                                                   \
        return opened(fd) ? errno : REAL(name)(fd, first, length); /* it returns the error */      \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

#define BY_NAME(name, parameters, arguments, path) \
    int name parameters { return named(AT_FDCWD, path) ? -1 : REAL(name) arguments; }
BY_NAME(rename, (const char *from, const char *to), (from, to), to)
BY_NAME(link, (const char *from, const char *to), (from, to), to)
BY_NAME(unlink, (const char *path), (path), path)
BY_NAME(rmdir, (const char *path), (path), path)
BY_NAME(mkdir, (const char *path, mode_t mode), (path, mode), path)

int renameat(int a, const char *from, int b, const char *to) { return named(b, to) ? -1 : REAL(renameat)(a, from, b, to); }
int unlinkat(int a, const char *path, int flags) { return named(a, path) ? -1 : REAL(unlinkat)(a, path, flags); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    return named(b, to) ? -1 : REAL(linkat)(a, from, b, to, flags);
}
