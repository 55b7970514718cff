/* Faults that only a process itself can meet: an fsync that fails, a clock that jumps,
   a death between two system calls. Preloaded by the campaign, never by the product.

   MLT_FAULT_PLAN names a file with one line: CALL NTH ACTION NUMBER PART
     CALL    fsync rename symlink unlink write, any of these, or clock
     NTH     which such call, counted from 1 in each process
     ACTION  error (errno NUMBER, from that call on), before or after (SIGKILL), jump
     PART    of the path that counts; - is every path
   It acts in processes whose command line holds MLT_FAULT_IN. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int wanted = -1, loaded, nth, number, count;
static char call_[16], action[16], part[128];

static int mine(void) {
    if (wanted < 0) {
        char text[4096], *name = getenv("MLT_FAULT_IN");
        int file = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY);
        ssize_t size = file < 0 ? 0 : syscall(SYS_read, file, text, sizeof text - 1);
        if (file >= 0) syscall(SYS_close, file);
        if (size < 0) size = 0;
        wanted = name && memmem(text, size, name, strlen(name)) != NULL;
    }
    return wanted;
}

static int planned(void) {
    if (!mine()) return 0;
    if (!loaded) {
        char text[512], *name = getenv("MLT_FAULT_PLAN");
        int file = name ? syscall(SYS_openat, AT_FDCWD, name, O_RDONLY) : -1;
        if (file < 0) return 0;
        ssize_t size = syscall(SYS_read, file, text, sizeof text - 1);
        syscall(SYS_close, file);
        if (size <= 0) return 0;
        text[size] = 0;
        loaded = sscanf(text, "%15s %d %15s %d %127s", call_, &nth, action, &number,
                        part) == 5;
    }
    return loaded;
}

static int hit(const char *name, const char *path) {
    if (!planned() || !strcmp(call_, "clock")) return 0;
    if (strcmp(call_, "any") && strcmp(call_, name)) return 0;
    if (strcmp(part, "-") && !strstr(path, part)) return 0;
    count++;
    if (!strcmp(action, "error") ? count < nth : count != nth) return 0;
    if (!strcmp(action, "before")) kill(getpid(), SIGKILL);
    return 1;
}

static void after(int struck) {
    if (struck && !strcmp(action, "after")) kill(getpid(), SIGKILL);
}

static int fails(int struck) {
    if (struck && !strcmp(action, "error")) {
        errno = number;
        return 1;
    }
    return 0;
}

static const char *path_of(int descriptor, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t got = readlink(link, path, size - 1);
    path[got < 0 ? 0 : got] = 0;
    return path;
}

#define REAL(type, name) static type (*real)(); \
    if (!real) real = (type (*)())dlsym(RTLD_NEXT, name)

int fsync(int descriptor) {
    REAL(int, "fsync");
    char path[4096];
    int struck = mine() ? hit("fsync", path_of(descriptor, path, sizeof path)) : 0;
    if (fails(struck)) return -1;
    int result = real(descriptor);
    after(struck);
    return result;
}

int syncfs(int descriptor) {
    REAL(int, "syncfs");
    char path[4096];
    int struck = mine() ? hit("fsync", path_of(descriptor, path, sizeof path)) : 0;
    if (fails(struck)) return -1;
    int result = real(descriptor);
    after(struck);
    return result;
}

ssize_t write(int descriptor, const void *text, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    char path[4096];
    /* Only files of the state folder: pipes and sockets are not what is durable. */
    int struck = mine() && path_of(descriptor, path, sizeof path)[0] == '/' &&
                         strstr(path, "/state/")
                     ? hit("write", path)
                     : 0;
    if (fails(struck)) return -1;
    if (struck && !strcmp(action, "after")) {
        /* Half of it, as a power cut would leave it. */
        real(descriptor, text, size / 2);
        kill(getpid(), SIGKILL);
    }
    return real(descriptor, text, size);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename");
    int struck = hit("rename", to);
    if (fails(struck)) return -1;
    int result = real(from, to);
    after(struck);
    return result;
}

int symlink(const char *target, const char *path) {
    REAL(int, "symlink");
    int struck = hit("symlink", path);
    if (fails(struck)) return -1;
    int result = real(target, path);
    after(struck);
    return result;
}

int unlink(const char *path) {
    REAL(int, "unlink");
    int struck = hit("unlink", path);
    if (fails(struck)) return -1;
    int result = real(path);
    after(struck);
    return result;
}

static long shift(void) {
    if (!planned() || strcmp(call_, "clock")) return 0;
    return ++count >= nth ? number : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += shift();
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
