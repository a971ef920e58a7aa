/* The process that holds a pod's namespaces: reaps what is left to it, ends when asked to. With -v it ends at once, as the
 * official one does: kubeadm tries with it whether a cluster runs pods. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "-v") == 0)
    return 0;

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
