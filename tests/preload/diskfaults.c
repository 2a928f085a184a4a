/* Makes a process's disk slow or faulty. DISK_FAULTS names a mapped file of six 32-bit numbers: how long a sync takes
   (ms; also of one that waits already); the errno of writes and after how many it comes; the errno of syncs and after
   how many (0: none); how many syncs have begun. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

struct faults { volatile int32_t delay_ms, write_errno, write_after, sync_errno, sync_after, syncs; };

static struct faults *faults(void)
{
    static struct faults *map;
    if (!map) {
        const char *path = getenv("DISK_FAULTS");
        int fd = path ? open(path, O_RDWR) : -1;
        void *found = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *map, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd >= 0) close(fd);
        if (found == MAP_FAILED) return NULL;
        map = found;
    }
    return map;
}

static int fails(volatile int32_t *number, volatile int32_t *after)
{
    if (!*number) return 0;
    if (*after > 0) { --*after; return 0; }
    errno = *number;
    return 1;
}

static int sync_with(const char *name, int fd)
{
    struct faults *f = faults();
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (f) ++f->syncs;
    for (int32_t waited = 0; f && waited < f->delay_ms; waited += 10) usleep(10000);
    return f && fails(&f->sync_errno, &f->sync_after) ? -1 : real(fd);
}

int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    struct faults *f = faults();
    ssize_t (*real)(int, const void *, size_t, off64_t) =
        (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return f && fails(&f->write_errno, &f->write_after) ? -1 : real(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }
