/* A disk that goes bad, for one process: put before the C library with LD_PRELOAD, it fails what is written or synced in
 * the folder WEIRMQ_BAD_FOLDER for as long as the file WEIRMQ_BAD_DISK is there. That file says how: "write ERRNO",
 * "sync ERRNO" or "sync hang", where every call waits until the file is gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int order(char *kind, char *how) {
    const char *path = getenv("WEIRMQ_BAD_DISK");
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    int words = file == NULL ? 0 : fscanf(file, "%15s %15s", kind, how);
    if (file != NULL) {
        fclose(file);
    }
    return words == 2;
}

/* Whether a call of this kind on this file is to fail; `errno` says how. */
static int fails(int fd, const char *kind) {
    char link[64], path[4096], asked[16], how[16];
    const char *folder = getenv("WEIRMQ_BAD_FOLDER");
    ssize_t length;
    if (!order(asked, how) || strcmp(asked, kind) != 0 || folder == NULL) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0) {
        return 0;
    }
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0) {
        return 0;
    }
    while (strcmp(how, "hang") == 0) {
        usleep(10000);
        if (!order(asked, how)) {
            return 0;
        }
    }
    errno = atoi(how);
    return 1;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    return fails(fd, "write") ? -1 : syscall(SYS_write, fd, data, bytes);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at) {
    return fails(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, data, bytes, at);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) { return pwrite64(fd, data, bytes, at); }

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    return fails(fd, "write") ? -1 : syscall(SYS_writev, fd, pieces, count);
}

int fsync(int fd) { return fails(fd, "sync") ? -1 : (int)syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return fails(fd, "sync") ? -1 : (int)syscall(SYS_fdatasync, fd); }
