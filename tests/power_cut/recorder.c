/*
 * Records what a process does to the files below one directory: an LD_PRELOAD library for the tests of power cuts.
 *
 * The program reaches the file system through the functions of libc (the standard library, redb and tokio do; rustix, which does not, opens
 * and locks only), so this layer sees everything; the test `replay` proves it by comparing the replayed trace with the directory.
 *
 * Each record is a header of eight numbers, one or two paths, and data. One lock is held over each operation and its record, so that
 * the order of the records is the order of the operations. The trace is locked (flock) for as long: whoever holds that lock can kill
 * the process, and no operation is without its record. POWER_CUT_ROOT is the directory, POWER_CUT_TRACE the file of the trace.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The same numbers as in trace.rs. */
enum {
    OP_OPEN = 1, OP_WRITE = 2, OP_SET_LENGTH = 3, OP_SYNC_FILE = 4, OP_SYNC_DIRECTORY = 5, OP_SYNC_ALL = 6,
    OP_RENAME = 7, OP_LINK = 8, OP_SYMLINK = 9, OP_REMOVE = 10, OP_MAKE_DIRECTORY = 11, OP_MODE = 12, OP_UNSUPPORTED = 13
};

#define PATH_BYTES 4096
#define MAX_PARTS 512

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_BYTES];
static size_t root_length;
static dev_t root_device;
static int trace = -1;

static void take_mutex(void) { pthread_mutex_lock(&lock); }
static void give_mutex(void) { pthread_mutex_unlock(&lock); }

static void take_lock(void) {
    take_mutex();
    while (trace >= 0 && flock(trace, LOCK_EX) != 0)
        if (errno != EINTR) abort();
}

/* A successful flock leaves errno as the operation has set it. */
static void give_lock(void) {
    if (trace >= 0 && flock(trace, LOCK_UN) != 0) abort();
    give_mutex();
}

__attribute__((constructor)) static void start(void) {
    const char *directory = getenv("POWER_CUT_ROOT"), *file = getenv("POWER_CUT_TRACE");
    struct stat found;
    if (!directory || !file || strlen(directory) >= sizeof root || stat(directory, &found) != 0) return;
    strcpy(root, directory);
    root_length = strlen(root);
    root_device = found.st_dev;
    trace = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) abort();
    /* A child between fork and exec must not find the mutex taken by a thread that it does not have. The flock is its parent's too. */
    pthread_atfork(take_mutex, give_mutex, give_mutex);
}

static int is_inside(const char *path) {
    return trace >= 0 && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* The absolute path; an empty one for what cannot be known. */
static void resolve(int directory, const char *path, char *out) {
    char link[64];
    ssize_t length = 0;
    out[0] = 0;
    if (!path || strlen(path) >= PATH_BYTES / 2) return;
    if (path[0] != '/') {
        if (directory == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_BYTES / 2);
        if (length < 0) { out[0] = 0; return; }
        out[length++] = '/';
    }
    strcpy(out + length, path);
}

/* The path of an open file or directory. */
static void path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_BYTES - 1);
    out[length < 0 ? 0 : length] = 0;
}

/* Whether it is a regular file on the disk of the directory; others are not recorded. */
static int is_recorded(int fd, struct stat *found) {
    return trace >= 0 && fd != trace && fstat(fd, found) == 0 && S_ISREG(found->st_mode) && found->st_dev == root_device;
}

static void record(int operation, uint64_t inode, int64_t a, int64_t b, const char *path, const char *other,
                   const struct iovec *data, int parts, size_t bytes) {
    struct timespec now;
    struct iovec all[MAX_PARTS + 3];
    int used = 0, saved = errno, i;
    if (!path) path = "";
    if (!other) other = "";
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t header[8] = {operation, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec, (int64_t)inode, a, b,
                         (int64_t)strlen(path), (int64_t)strlen(other), (int64_t)bytes};
    size_t total = sizeof header + strlen(path) + strlen(other) + bytes;
    all[used++] = (struct iovec){header, sizeof header};
    all[used++] = (struct iovec){(void *)path, strlen(path)};
    all[used++] = (struct iovec){(void *)other, strlen(other)};
    /* A short write has fewer bytes than the parts. */
    for (i = 0; i < parts && bytes > 0; i++) {
        size_t length = data[i].iov_len < bytes ? data[i].iov_len : bytes;
        all[used++] = (struct iovec){data[i].iov_base, length};
        bytes -= length;
    }
    if (syscall(SYS_writev, trace, all, used) != (long)total) abort();
    errno = saved;
}

/* ---- opening ---- */

static int record_open(int directory, const char *path, int flags, mode_t mode) {
    char full[PATH_BYTES];
    struct stat before, after;
    if (trace < 0 || !(flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)))
        return syscall(SYS_openat, directory, path, flags, mode);
    resolve(directory, path, full);
    if (!is_inside(full)) return syscall(SYS_openat, directory, path, flags, mode);
    take_lock();
    int existed = fstatat(AT_FDCWD, full, &before, 0) == 0;
    int fd = syscall(SYS_openat, directory, path, flags, mode);
    if (fd >= 0 && fstat(fd, &after) == 0) {
        if ((flags & O_TMPFILE) == O_TMPFILE || (flags & O_DSYNC))
            record(OP_UNSUPPORTED, after.st_ino, flags, 0, full, "open", NULL, 0, 0);
        else if (S_ISREG(after.st_mode) && !existed)
            record(OP_OPEN, after.st_ino, 1, after.st_mode & 07777, full, NULL, NULL, 0, 0);
        else if (S_ISREG(after.st_mode) && (flags & O_TRUNC))
            record(OP_SET_LENGTH, after.st_ino, 0, 0, NULL, NULL, NULL, 0, 0);
    }
    give_lock();
    return fd;
}

#define MODE_ARGUMENT(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE_ARGUMENT(flags) return record_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_ARGUMENT(flags) return record_open(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_ARGUMENT(flags) return record_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_ARGUMENT(flags) return record_open(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return record_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* ---- writing ---- */

static ssize_t record_write(int fd, const struct iovec *data, int parts, int64_t offset) {
    struct stat found;
    int at_position = offset < 0;
    if (!is_recorded(fd, &found))
        return at_position ? syscall(SYS_writev, fd, data, parts) : syscall(SYS_pwritev, fd, data, parts, offset, 0);
    /* A short write: the caller writes the rest. */
    if (parts > MAX_PARTS) parts = MAX_PARTS;
    take_lock();
    ssize_t written = at_position ? syscall(SYS_writev, fd, data, parts) : syscall(SYS_pwritev, fd, data, parts, offset, 0);
    if (written > 0) {
        if (at_position) offset = lseek(fd, 0, SEEK_CUR) - written;
        record(OP_WRITE, found.st_ino, offset, 0, NULL, NULL, data, parts, written);
    }
    give_lock();
    return written;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    struct stat found;
    struct iovec one = {(void *)data, bytes};
    /* Pipes and sockets: a record may be longer than what writev writes at once. */
    return is_recorded(fd, &found) ? record_write(fd, &one, 1, -1) : syscall(SYS_write, fd, data, bytes);
}
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    struct iovec one = {(void *)data, bytes};
    return record_write(fd, &one, 1, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset) { return pwrite(fd, data, bytes, offset); }
ssize_t writev(int fd, const struct iovec *data, int parts) { return record_write(fd, data, parts, -1); }
ssize_t pwritev(int fd, const struct iovec *data, int parts, off_t offset) { return record_write(fd, data, parts, offset); }
ssize_t pwritev64(int fd, const struct iovec *data, int parts, off64_t offset) { return record_write(fd, data, parts, offset); }
ssize_t pwritev2(int fd, const struct iovec *data, int parts, off_t offset, int flags) {
    (void)flags;
    return record_write(fd, data, parts, offset);
}

/* The caller then reads and writes. */
ssize_t copy_file_range(int in, off64_t *at, int out, off64_t *to, size_t bytes, unsigned flags) {
    (void)in, (void)at, (void)out, (void)to, (void)bytes, (void)flags;
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile(int out, int in, off_t *at, size_t bytes) {
    struct stat found;
    if (!is_recorded(out, &found)) return syscall(SYS_sendfile, out, in, at, bytes);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t bytes) { return sendfile(out, in, at, bytes); }
ssize_t splice(int in, off64_t *at, int out, off64_t *to, size_t bytes, unsigned flags) {
    struct stat found;
    if (!is_recorded(out, &found)) return syscall(SYS_splice, in, at, out, to, bytes, flags);
    errno = ENOSYS;
    return -1;
}

/* ---- lengths and modes ---- */

int ftruncate(int fd, off_t length) {
    struct stat found;
    if (!is_recorded(fd, &found)) return syscall(SYS_ftruncate, fd, length);
    take_lock();
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0) record(OP_SET_LENGTH, found.st_ino, length, 0, NULL, NULL, NULL, 0, 0);
    give_lock();
    return result;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }
int truncate(const char *path, off_t length) {
    int fd = record_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int result = ftruncate(fd, length);
    close(fd);
    return result;
}
int truncate64(const char *path, off64_t length) { return truncate(path, length); }

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
    struct stat found;
    if (!is_recorded(fd, &found)) return syscall(SYS_fallocate, fd, mode, offset, bytes);
    take_lock();
    int result = syscall(SYS_fallocate, fd, mode, offset, bytes);
    if (result == 0 && mode != 0) record(OP_UNSUPPORTED, found.st_ino, mode, 0, NULL, "fallocate", NULL, 0, 0);
    else if (result == 0 && offset + bytes > found.st_size)
        record(OP_SET_LENGTH, found.st_ino, offset + bytes, 0, NULL, NULL, NULL, 0, 0);
    give_lock();
    return result;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) { return fallocate(fd, mode, offset, bytes); }
int posix_fallocate(int fd, off_t offset, off_t bytes) { return fallocate(fd, 0, offset, bytes) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off64_t offset, off64_t bytes) { return posix_fallocate(fd, offset, bytes); }

static int record_mode(int at, const char *path, mode_t mode) {
    char full[PATH_BYTES];
    resolve(at, path, full);
    take_lock();
    int result = syscall(SYS_fchmodat, at, path, mode);
    if (result == 0 && is_inside(full)) record(OP_MODE, 0, mode & 07777, 0, full, NULL, NULL, 0, 0);
    give_lock();
    return result;
}
int chmod(const char *path, mode_t mode) { return record_mode(AT_FDCWD, path, mode); }
int fchmodat(int at, const char *path, mode_t mode, int flags) { (void)flags; return record_mode(at, path, mode); }
int fchmod(int fd, mode_t mode) {
    struct stat found;
    take_lock();
    int result = syscall(SYS_fchmod, fd, mode);
    if (result == 0 && is_recorded(fd, &found)) record(OP_MODE, found.st_ino, mode & 07777, 0, NULL, NULL, NULL, 0, 0);
    give_lock();
    return result;
}

void *mmap(void *at, size_t bytes, int access, int flags, int fd, off_t offset) {
    char path[PATH_BYTES];
    struct stat found;
    void *mapped = (void *)syscall(SYS_mmap, at, bytes, access, flags, fd, offset);
    if (fd >= 0 && mapped != MAP_FAILED && (access & PROT_WRITE) && (flags & MAP_SHARED) && is_recorded(fd, &found)) {
        path_of(fd, path);
        take_lock();
        if (is_inside(path)) record(OP_UNSUPPORTED, found.st_ino, flags, 0, path, "mmap", NULL, 0, 0);
        give_lock();
    }
    return mapped;
}
void *mmap64(void *at, size_t bytes, int access, int flags, int fd, off64_t offset) {
    return mmap(at, bytes, access, flags, fd, offset);
}

/* ---- syncing ---- */

static int record_sync(int fd, long number) {
    char full[PATH_BYTES];
    struct stat found;
    if (trace < 0 || fstat(fd, &found) != 0) return syscall(number, fd);
    take_lock();
    int result = syscall(number, fd);
    if (result == 0 && S_ISDIR(found.st_mode)) {
        path_of(fd, full);
        if (is_inside(full)) record(OP_SYNC_DIRECTORY, found.st_ino, 0, 0, full, NULL, NULL, 0, 0);
    } else if (result == 0 && is_recorded(fd, &found)) {
        record(OP_SYNC_FILE, found.st_ino, 0, 0, NULL, NULL, NULL, 0, 0);
    }
    give_lock();
    return result;
}
int fsync(int fd) { return record_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return record_sync(fd, SYS_fdatasync); }
static void record_sync_all(void) {
    if (trace < 0) return;
    take_lock();
    record(OP_SYNC_ALL, 0, 0, 0, NULL, NULL, NULL, 0, 0);
    give_lock();
}
int syncfs(int fd) { int result = syscall(SYS_syncfs, fd); if (result == 0) record_sync_all(); return result; }
void sync(void) { syscall(SYS_sync); record_sync_all(); }
/* sync_file_range and msync promise nothing about the metadata that a file needs to be found, so they are not recorded. */

/* ---- names ---- */

static int record_rename(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char full_from[PATH_BYTES], full_to[PATH_BYTES];
    resolve(from_at, from, full_from);
    resolve(to_at, to, full_to);
    take_lock();
    int result = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (result == 0 && (is_inside(full_from) || is_inside(full_to)))
        record(flags ? OP_UNSUPPORTED : OP_RENAME, 0, 0, 0, full_from, full_to, NULL, 0, 0);
    give_lock();
    return result;
}
int rename(const char *from, const char *to) { return record_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return record_rename(from_at, from, to_at, to, 0); }
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    return record_rename(from_at, from, to_at, to, flags);
}

static int record_link(int from_at, const char *from, int to_at, const char *to, int flags) {
    char full_from[PATH_BYTES], full_to[PATH_BYTES];
    resolve(from_at, from, full_from);
    resolve(to_at, to, full_to);
    take_lock();
    int result = syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (result == 0 && is_inside(full_to)) record(OP_LINK, 0, 0, 0, full_from, full_to, NULL, 0, 0);
    give_lock();
    return result;
}
int link(const char *from, const char *to) { return record_link(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    return record_link(from_at, from, to_at, to, flags);
}

static int record_symlink(const char *target, int at, const char *path) {
    char full[PATH_BYTES];
    resolve(at, path, full);
    take_lock();
    int result = syscall(SYS_symlinkat, target, at, path);
    if (result == 0 && is_inside(full)) record(OP_SYMLINK, 0, 0, 0, full, target, NULL, 0, 0);
    give_lock();
    return result;
}
int symlink(const char *target, const char *path) { return record_symlink(target, AT_FDCWD, path); }
int symlinkat(const char *target, int at, const char *path) { return record_symlink(target, at, path); }

static int record_remove(int at, const char *path, int flags) {
    char full[PATH_BYTES];
    resolve(at, path, full);
    take_lock();
    int result = syscall(SYS_unlinkat, at, path, flags);
    if (result == 0 && is_inside(full)) record(OP_REMOVE, 0, 0, 0, full, NULL, NULL, 0, 0);
    give_lock();
    return result;
}
int unlink(const char *path) { return record_remove(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return record_remove(at, path, flags); }
int rmdir(const char *path) { return record_remove(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlink(path);
    return result != 0 && errno == EISDIR ? rmdir(path) : result;
}

static int record_mkdir(int at, const char *path, mode_t mode) {
    char full[PATH_BYTES];
    struct stat found;
    resolve(at, path, full);
    take_lock();
    int result = syscall(SYS_mkdirat, at, path, mode);
    if (result == 0 && is_inside(full) && fstatat(AT_FDCWD, full, &found, 0) == 0)
        record(OP_MAKE_DIRECTORY, found.st_ino, found.st_mode & 07777, 0, full, NULL, NULL, 0, 0);
    give_lock();
    return result;
}
int mkdir(const char *path, mode_t mode) { return record_mkdir(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return record_mkdir(at, path, mode); }
