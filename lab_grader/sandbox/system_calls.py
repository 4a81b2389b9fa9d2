"""The system calls that a kernel may make: those that Python, PyTorch and a shell need.

Every other call fails as if Linux did not know it (ENOSYS), which libraries are prepared for. So
there are no key rings, no new namespaces and no mounts, no tracing of other processes, no memory
that belongs to no process (memfd, System V, POSIX queues, shared memory without a file), no BPF,
io_uring or modules, and no families of sockets but two: those in the files, with connections and
buffers as they come, and IPv4 in an empty network of one's own.
"""

import errno
import fcntl
import functools
import mmap
import socket
import tempfile

ALLOWED = """
    access chdir chmod close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fdatasync fgetxattr flistxattr flock
    fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr lgetxattr link
    linkat listxattr llistxattr lseek lstat mkdir mkdirat mknod mknodat newfstatat open openat
    openat2
    pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
    renameat renameat2 rmdir sendfile stat statfs statx symlink symlinkat truncate umask unlink
    unlinkat utime utimensat utimes write writev

    brk madvise membarrier mincore mlock mlock2 mprotect mremap msync munlock munmap

    arch_prctl capget execve execveat exit exit_group fork get_robust_list getcpu getegid geteuid
    getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit
    getrusage getsid gettid getuid kill pause prctl restart_syscall rseq sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_yield set_robust_list set_tid_address setpgid setrlimit setsid sysinfo tgkill times tkill
    uname vfork wait4 waitid

    alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_tgsigqueueinfo setitimer sigaltstack time timer_create timer_delete
    timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime

    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 futex
    futex_waitv getrandom pipe pipe2 poll ppoll pselect6 select signalfd signalfd4

    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg
    sendmmsg sendmsg sendto shutdown
"""
# From the Linux headers sched.h and ioctls.h.
NEW_NAMESPACES = 0x7E020000
SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS  # of such memory no process's count need tell
KIND = 0xF  # of a socket, without its flags
# What may be set of a socket: not its buffers, so that it is known how much one can hold.
OPTIONS = (
    *(socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_KEEPALIVE, socket.SO_LINGER),
    *(socket.SO_RCVTIMEO, socket.SO_SNDTIMEO, socket.SO_PASSCRED),
)
# What may be asked of a descriptor: its flags, and to copy it. Not to be told of changes in a
# folder, to have others wait for a lease, to send signals, to make a pipe larger, or for locks on
# parts of a file: each takes memory that no process has, and there may be any number of them.
COMMANDS = (
    *(fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL),
    *(fcntl.F_SETFL, fcntl.F_GETPIPE_SZ),
)
# What libraries ask about a file of any kind: TCGETS, TIOCGPGRP, TIOCGWINSZ, FIONREAD, FIONBIO,
# FIONCLEX, FIOCLEX. No driver's own requests.
REQUESTS = (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)


class NoFilter(Exception):
    """The filter cannot be made here."""


@functools.cache
def filter_program() -> bytes:
    """Return the filter, as the program that Linux takes.

    Raises:
        NoFilter: libseccomp is missing.
    """
    try:
        import pyseccomp as seccomp
    except RuntimeError as error:
        raise NoFilter(
            "libseccomp, which blocks most system calls for students' code, is not installed. On "
            "Debian or Ubuntu: sudo apt install libseccomp2."
        ) from error
    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))

    def allow(name: str, *conditions: seccomp.Arg) -> None:
        made.add_rule(seccomp.ALLOW, name, *conditions)

    for name in ALLOWED.split():
        # an old libseccomp does not know the newest, which then stay refused
        if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) != -1:
            allow(name)
    allow("clone", seccomp.Arg(0, seccomp.MASKED_EQ, NEW_NAMESPACES, 0))
    for name in ("prlimit64", "sched_setaffinity"):  # of the caller, not of the fork server
        allow(name, seccomp.Arg(0, seccomp.EQ, 0))
    for flags in (0, mmap.MAP_SHARED, mmap.MAP_ANONYMOUS):
        allow("mmap", seccomp.Arg(3, seccomp.MASKED_EQ, SHARED, flags))
    shared = seccomp.Arg(3, seccomp.MASKED_EQ, SHARED, SHARED)
    made.add_rule(seccomp.ERRNO(errno.EPERM), "mmap", shared)
    in_files = seccomp.Arg(0, seccomp.EQ, socket.AF_UNIX)
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):  # one without connections takes more
        for name in ("socket", "socketpair"):
            allow(name, in_files, seccomp.Arg(1, seccomp.MASKED_EQ, KIND, kind))
    allow("socket", seccomp.Arg(0, seccomp.EQ, socket.AF_INET))  # ipykernel's, for forked processes
    for level in (socket.IPPROTO_IP, socket.IPPROTO_TCP):
        allow("setsockopt", seccomp.Arg(1, seccomp.EQ, level))
    for option in OPTIONS:
        of_any_socket = seccomp.Arg(1, seccomp.EQ, socket.SOL_SOCKET)
        allow("setsockopt", of_any_socket, seccomp.Arg(2, seccomp.EQ, option))
    # ZeroMQ looks for network interfaces by another family, and goes on after this error only.
    other = seccomp.Arg(0, seccomp.GT, max(socket.AF_UNIX, socket.AF_INET))
    made.add_rule(seccomp.ERRNO(errno.EOPNOTSUPP), "socket", other)
    for command in COMMANDS:
        allow("fcntl", seccomp.Arg(1, seccomp.EQ, command))
    for request in REQUESTS:
        allow("ioctl", seccomp.Arg(1, seccomp.EQ, request))
    # ZeroMQ's threads insist on it, and it could slow down the fork server: it does nothing.
    made.add_rule(seccomp.ERRNO(0), "sched_setscheduler")
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
