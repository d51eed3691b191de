// Reads and writes that move a part of the bytes that they were asked to move, by SHORT_SEED.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_ulong calls;

static size_t less(size_t count)
{
    static unsigned long seed;
    if (!seed) {
        const char *text = getenv("SHORT_SEED");
        seed = text ? strtoul(text, NULL, 10) + 1 : 1;
    }
    unsigned long mixed = (atomic_fetch_add(&calls, 1) + seed) * 0x9e3779b97f4a7c15UL;
    mixed ^= mixed >> 31;
    if (count < 2 || mixed % 4)
        return count;
    return 1 + (mixed >> 8) % count;
}

#define NEXT(name) static __typeof__(name) *next; if (!next) *(void **)&next = dlsym(RTLD_NEXT, #name)

ssize_t read(int fd, void *to, size_t n) { NEXT(read); return next(fd, to, less(n)); }
ssize_t write(int fd, const void *from, size_t n) { NEXT(write); return fd <= 2 ? next(fd, from, n) : next(fd, from, n == 8 ? n : less(n)); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at) { NEXT(pread64); return next(fd, to, less(n), at); }
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) { NEXT(pwrite64); return next(fd, from, less(n), at); }
ssize_t recv(int fd, void *to, size_t n, int flags) { NEXT(recv); return next(fd, to, flags & MSG_PEEK ? n : less(n), flags); }
ssize_t send(int fd, const void *from, size_t n, int flags) { NEXT(send); return next(fd, from, less(n), flags); }

static size_t total(const struct msghdr *message)
{
    size_t all = 0;
    for (size_t at = 0; at < message->msg_iovlen; at++)
        all += message->msg_iov[at].iov_len;
    return all;
}

// The parts of the message up to so many bytes.
static void cut(struct msghdr *message, struct iovec *parts, size_t left)
{
    size_t at = 0;
    for (; at < message->msg_iovlen && at < 1024 && left; at++) {
        parts[at] = message->msg_iov[at];
        if (parts[at].iov_len > left)
            parts[at].iov_len = left;
        left -= parts[at].iov_len;
    }
    message->msg_iov = parts;
    message->msg_iovlen = at;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    NEXT(sendmsg);
    struct msghdr copy = *message;
    struct iovec parts[1024];
    cut(&copy, parts, less(total(message)));
    return next(fd, &copy, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    NEXT(recvmsg);
    struct msghdr copy = *message;
    struct iovec parts[1024];
    cut(&copy, parts, less(total(message)));
    ssize_t count = next(fd, &copy, flags);
    message->msg_flags = copy.msg_flags;
    message->msg_namelen = copy.msg_namelen;
    message->msg_controllen = copy.msg_controllen;
    return count;
}
