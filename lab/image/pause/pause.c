/* The process that holds a pod's namespaces: reaps what is left to it, ends when asked to. */
#include <signal.h>
#include <sys/wait.h>

int main(void) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, 0);

  for (;;) {
    int signal;
    if (sigwait(&signals, &signal) != 0)
      return 1;
    if (signal != SIGCHLD)
      return 0;
    while (waitpid(-1, 0, WNOHANG) > 0)
      ;
  }
}
