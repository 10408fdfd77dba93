/* Stands between a process and the calls by which it changes files below one folder (LD_PRELOAD).

It counts those calls; writes each into a log, with what it changed; and at a chosen one kills the process, kills it
with half of a write done, or fails with an error of choice. Calls for other files pass through untouched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KILL = -1, TEAR = -2 };

static char folder[PATH_MAX];
static int log_fd = -1, action, sticky, with_reads;
static long chosen, count;
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* From now on, calls for files below `prefix` are counted from 1, and the `at`-th (all from it on, if `forever`) meets
   its fate: KILL, TEAR, or an errno. log: a descriptor for the log, or -1. reads: reading counts too. */
void shim_start(const char *prefix, int log, long at, int fate, int forever, int reads) {
    snprintf(folder, sizeof folder, "%s", prefix);
    log_fd = log, chosen = at, action = fate, sticky = forever, with_reads = reads, count = 0;
}

long shim_count(void) { return count; }

void shim_stop(void) { folder[0] = 0; }

static void put(const void *data, size_t size) {
    for (const char *at = data; size;) {
        ssize_t done = syscall(SYS_write, log_fd, at, size);
        if (done < 0) _exit(99);
        at += done, size -= done;
    }
}

/* One entry of the log: kind, file (its inode), offset or size, two strings. */
static void entry(char kind, unsigned long inode, long offset, const void *first, long size, const char *second) {
    if (log_fd < 0) return;
    long numbers[5] = {kind, (long)inode, offset, size, second ? (long)strlen(second) : 0};
    put(numbers, sizeof numbers);
    put(first, size);
    if (second) put(second, numbers[4]);
}

void shim_mark(const char *text) { entry('A', 0, 0, text, strlen(text), NULL); }

static int below(const char *path) {
    size_t size = strlen(folder), length = strlen(path);
    if (!size || strncmp(path, folder, size) || (path[size] && path[size] != '/')) return 0;
    return length < 4 || strcmp(path + length - 4, "-shm"); /* shared memory, made anew by whoever comes first */
}

/* Locks hold no data. */
static int is_lock(const char *path) {
    size_t length = strlen(path);
    return length >= 4 && !strcmp(path + length - 4, "lock");
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return below(path);
}

static int full_path(int at, const char *path, char *whole) {
    if (!folder[0]) return 0;
    if (path[0] == '/') snprintf(whole, PATH_MAX, "%s", path);
    else {
        char base[PATH_MAX];
        if (at == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
        else { int size; char link[64]; snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            if ((size = readlink(link, base, PATH_MAX - 1)) < 0) return 0;
            base[size] = 0; }
        if ((size_t)snprintf(whole, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    return below(whole);
}

static unsigned long inode_of(int fd) { struct stat facts; return fstat(fd, &facts) ? 0 : facts.st_ino; }
static unsigned long inode_at(const char *path) { struct stat facts; return lstat(path, &facts) ? 0 : facts.st_ino; }

/* Counts a call. 0: let it happen. 1: fail, errno is set. 2: half of it, then die. */
static int fate(void) {
    long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (!chosen || (sticky ? number < chosen : number != chosen)) return 0;
    if (action == KILL) kill(getpid(), SIGKILL);
    if (action == TEAR) return 2;
    errno = action;
    return 1;
}

static void die(void) { kill(getpid(), SIGKILL); }

static int opened(int at, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    int writes = flags & (O_CREAT | O_TRUNC);
    if (!full_path(at, path, whole) || (!writes && !with_reads) || is_lock(whole))
        return syscall(SYS_openat, at, path, flags, mode);
    unsigned long before = inode_at(whole);
    if (writes && before && !(flags & O_TRUNC)) return syscall(SYS_openat, at, path, flags, mode);
    int what = fate();
    if (what == 1) return -1;
    if (what == 2) die();
    pthread_mutex_lock(&one);
    int fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && writes) {
        if (!before) entry('c', inode_of(fd), 0, whole, strlen(whole), NULL);
        else entry('t', before, 0, "", 0, NULL);
    }
    pthread_mutex_unlock(&one);
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); \
    mode = va_arg(list, mode_t); va_end(list); }
int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return opened(at, path, flags | O_LARGEFILE, mode); }

static ssize_t written(int fd, const void *data, size_t size, long offset) {
    char path[PATH_MAX];
    int ours = folder[0] && fd != log_fd && path_of(fd, path);
    int what = ours ? fate() : 0;
    if (what == 1) return -1;
    if (what == 2) size /= 2;
    pthread_mutex_lock(&one);
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, size) : syscall(SYS_pwrite64, fd, data, size, offset);
    if (ours && done > 0) entry('w', inode_of(fd), offset < 0 ? lseek(fd, 0, SEEK_CUR) - done : offset, data, done, NULL);
    pthread_mutex_unlock(&one);
    if (what == 2) die();
    return done;
}
ssize_t write(int fd, const void *data, size_t size) { return written(fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return written(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return written(fd, data, size, offset); }

/* Callers fall back on reading and writing, which are seen. */
ssize_t sendfile(int to, int from, off_t *offset, size_t size) {
    char path[PATH_MAX];
    if (folder[0] && path_of(to, path)) { errno = ENOTSOCK; return -1; }
    return syscall(SYS_sendfile, to, from, offset, size);
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) { return sendfile(to, from, offset, size); }

static int read_fails(int fd) {
    char path[PATH_MAX];
    return with_reads && folder[0] && path_of(fd, path) && fate() == 1;
}
ssize_t read(int fd, void *data, size_t size) { return read_fails(fd) ? -1 : syscall(SYS_read, fd, data, size); }
ssize_t pread(int fd, void *data, size_t size, off_t offset) {
    return read_fails(fd) ? -1 : syscall(SYS_pread64, fd, data, size, offset);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) { return pread(fd, data, size, offset); }

/* The rest: CALL happens with the log locked, and LOG is written where it succeeded. */
#define GUARDED(ours, CALL, LOG) do { \
    int guarded = ours, what = guarded ? fate() : 0; \
    if (what == 1) return -1; \
    if (what == 2) die(); \
    pthread_mutex_lock(&one); \
    long result = CALL; \
    if (guarded && result == 0) { int kept = errno; LOG; errno = kept; } \
    pthread_mutex_unlock(&one); \
    return result; } while (0)

static int synced(int fd, long number) {
    char path[PATH_MAX];
    GUARDED(folder[0] && path_of(fd, path), syscall(number, fd), entry('s', inode_of(fd), 0, "", 0, NULL));
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int ftruncate(int fd, off_t size) {
    char path[PATH_MAX];
    GUARDED(folder[0] && path_of(fd, path), syscall(SYS_ftruncate, fd, size), entry('t', inode_of(fd), size, "", 0, NULL));
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
int truncate(const char *path, off_t size) {
    char whole[PATH_MAX];
    GUARDED(full_path(AT_FDCWD, path, whole), syscall(SYS_truncate, path, size), entry('t', inode_at(whole), size, "", 0, NULL));
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned int flags) {
    char old[PATH_MAX], new[PATH_MAX];
    int ours = full_path(from_at, from, old) & full_path(to_at, to, new);
    GUARDED(ours, syscall(SYS_renameat2, from_at, from, to_at, to, flags), entry('r', 0, 0, old, strlen(old), new));
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    char old[PATH_MAX], new[PATH_MAX];
    int ours = full_path(from_at, from, old) & full_path(to_at, to, new);
    GUARDED(ours, syscall(SYS_linkat, from_at, from, to_at, to, flags), entry('l', inode_at(new), 0, new, strlen(new), NULL));
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    char whole[PATH_MAX];
    GUARDED(full_path(at, path, whole), syscall(SYS_unlinkat, at, path, flags), entry('u', 0, 0, whole, strlen(whole), NULL));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    GUARDED(full_path(at, path, whole), syscall(SYS_mkdirat, at, path, mode), entry('m', inode_at(whole), 0, whole, strlen(whole), NULL));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
