/* wallclock FILE PROGRAM...: becomes PROGRAM, for which and for all that it ever starts the wall clock is off by the
 * seconds in FILE, from the moment that they are written there. Every other clock is real, and so are a file's times
 * and timers that are set to a time of day.
 *
 * The clock is asked for by system calls, which seccomp hands to a child of ours, or in the vDSO, which another child
 * takes out of sight of every program when it starts. None of them can set the machine's clock. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int write_to(pid_t pid, unsigned long address, const void *data, size_t size) {
  struct iovec here = {(void *)data, size}, there = {(void *)address, size};
  return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

/* -- the wall clock ---------------------------------------------------------------------------------------------- */

#define ARGUMENT offsetof(struct seccomp_data, args[0])
#define IF_CALL(number, action) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, action)

static int intercept(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      IF_CALL(SYS_clock_settime, SECCOMP_RET_ERRNO | EPERM),
      IF_CALL(SYS_settimeofday, SECCOMP_RET_ERRNO | EPERM),
      IF_CALL(SYS_adjtimex, SECCOMP_RET_ERRNO | EPERM),
      IF_CALL(SYS_clock_adjtime, SECCOMP_RET_ERRNO | EPERM),
      IF_CALL(SYS_gettimeofday, SECCOMP_RET_USER_NOTIF),
#ifdef SYS_time
      IF_CALL(SYS_time, SECCOMP_RET_USER_NOTIF),
#endif
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT),
      IF_CALL(CLOCK_REALTIME, SECCOMP_RET_USER_NOTIF),
      IF_CALL(CLOCK_REALTIME_COARSE, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  unsigned flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
  int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  if (listener < 0) die("seccomp");
  return listener;
}

/* What stood there before, while it is being written. */
static long offset(int file) {
  static long last;
  char text[32];
  ssize_t length = pread(file, text, sizeof text - 1, 0);
  if (length <= 0) return last;
  text[length] = 0;
  return last = atol(text);
}

static struct timespec now(int file) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  time.tv_sec += offset(file);
  return time;
}

static void answer(int listener, int file) {
  for (;;) {
    struct seccomp_notif asked = {0};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked)) {
      if (errno == EINTR || errno == ENOENT) continue; /* the one who asked is gone */
      die("SECCOMP_IOCTL_NOTIF_RECV");
    }
    struct seccomp_notif_resp reply = {.id = asked.id};
    struct timespec exact = now(file);
    if (asked.data.nr == SYS_clock_gettime) {
      reply.error = write_to(asked.pid, asked.data.args[1], &exact, sizeof exact);
    } else if (asked.data.nr == SYS_gettimeofday) {
      struct timeval rough = {exact.tv_sec, exact.tv_nsec / 1000};
      if (asked.data.args[0]) reply.error = write_to(asked.pid, asked.data.args[0], &rough, sizeof rough);
    } else {
      reply.val = exact.tv_sec;
      if (asked.data.args[0])
        reply.error = write_to(asked.pid, asked.data.args[0], &exact.tv_sec, sizeof exact.tv_sec);
    }
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply) && errno != ENOENT) die("SECCOMP_IOCTL_NOTIF_SEND");
  }
}

/* -- the vDSO ---------------------------------------------------------------------------------------------------- */

/* A program that has just begun: argc, argv, NULL, environment, NULL and the auxiliary vector are on its stack. */
static void hide_vdso(pid_t pid) {
  static unsigned long stack[1 << 18];
  struct __ptrace_syscall_info info;
  if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) < 0) return; /* killed meanwhile */
  struct iovec here = {stack, sizeof stack}, there = {(void *)info.stack_pointer, sizeof stack};
  ssize_t size = process_vm_readv(pid, &here, 1, &there, 1, 0);
  size_t words = size < 0 ? 0 : size / sizeof *stack, at = 1 + stack[0] + 1;
  while (at < words && stack[at]) at++;
  for (at++; at + 1 < words && stack[at] != AT_NULL; at += 2) {
    unsigned long ignore = AT_IGNORE;
    if (stack[at] == AT_SYSINFO_EHDR) write_to(pid, info.stack_pointer + at * sizeof *stack, &ignore, sizeof ignore);
  }
}

static void watch(void) {
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
    if (pid <= 0 || !WIFSTOPPED(status)) continue;
    int event = status >> 16, signal = WSTOPSIG(status);
    if (event == PTRACE_EVENT_STOP && signal != SIGTRAP) {
      ptrace(PTRACE_LISTEN, pid, 0, 0);
      continue;
    }
    if (event == PTRACE_EVENT_EXEC) hide_vdso(pid);
    ptrace(PTRACE_CONT, pid, 0, event ? 0 : signal);
  }
}

/* Shares our files until we become PROGRAM, and ends with it. */
static pid_t child(char **argv) {
  pid_t pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
  if (pid < 0) die("clone");
  if (!pid) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    argv[0][0] = '@'; /* systemd ends such a process with the host, no sooner */
  }
  return pid;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int file = open(argv[1], O_RDONLY | O_CLOEXEC), listener, up[2], down[2];
  char byte = 0;
  if (file < 0) die(argv[1]);
  if (pipe2(up, O_CLOEXEC) || pipe2(down, O_CLOEXEC)) die("pipe2");
  pid_t program = getpid();
  if (!child(argv)) {
    long follow = PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
    if (ptrace(PTRACE_SEIZE, program, NULL, follow | PTRACE_O_EXITKILL)) die("PTRACE_SEIZE");
    if (write(up[1], &byte, 1) != 1) die("write");
    watch();
    return 0;
  }
  if (read(up[0], &byte, 1) != 1) return 1;
  if (!child(argv)) {
    if (read(down[0], &listener, sizeof listener) != sizeof listener) return 1;
    answer(listener, file);
  }
  listener = intercept();
  if (write(down[1], &listener, sizeof listener) != sizeof listener) die("write");
  execvp(argv[2], argv + 2);
  die(argv[2]);
}
