/* Steps and synchronises the wall clock of a process without touching the machine's.

   CLOCK_REALTIME, gettimeofday and time are shifted by, and adjtimex answers from, the file that FAKE_WALLCLOCK names,
   which is mapped and may change at any moment. Other clocks and all sleeping are the machine's own.
   Built by tests/wallclock.py: gcc -shared -fPIC -o wallclock.so wallclock.c */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

struct fake {
    volatile int64_t shift_ns;     /* added to the machine's wall clock */
    volatile int64_t max_error_us; /* negative: adjtimex fails with EPERM */
    volatile int64_t remaining_ns; /* timex.offset */
};

static struct fake *fake;

__attribute__((constructor)) static void map_file(void)
{
    const char *name = getenv("FAKE_WALLCLOCK");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof(struct fake), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED)
        fake = at;
}

static int is_wall(clockid_t id) { return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t id, struct timespec *at)
{
    static int (*machines)(clockid_t, struct timespec *);
    if (!machines)
        machines = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = machines(id, at);
    if (result || !fake || !is_wall(id))
        return result;
    int64_t ns = at->tv_sec * INT64_C(1000000000) + at->tv_nsec + fake->shift_ns;
    at->tv_sec = ns / INT64_C(1000000000);
    at->tv_nsec = ns % INT64_C(1000000000);
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    if (zone)
        memset(zone, 0, sizeof(struct timezone));
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *asked)
{
    if (!fake)
        return syscall(SYS_adjtimex, asked);
    int64_t max_error = fake->max_error_us;
    if (max_error < 0 || asked->modes) {
        errno = EPERM;
        return -1;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(asked, 0, sizeof *asked);
    asked->maxerror = max_error;
    asked->esterror = max_error;
    asked->offset = fake->remaining_ns;
    asked->status = STA_PLL | STA_NANO | (max_error < 16000000 ? 0 : STA_UNSYNC);
    asked->time.tv_sec = now.tv_sec;
    asked->time.tv_usec = now.tv_nsec; /* STA_NANO */
    asked->tick = 10000;
    return max_error < 16000000 ? TIME_OK : TIME_ERROR;
}
