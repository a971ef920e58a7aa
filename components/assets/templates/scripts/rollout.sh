# Whether every node and every workload is what it should be, and if not, why. Sourced by retire.sh, so it has no
# shebang.

# The first time, the temporary control plane still runs beside the real one.
[ -e "$MANIFESTS/bootstrap-apiserver.yaml" ] && first=yes || first=no

nodes_ready() {
  # shellcheck disable=SC2086
  kube wait --for=condition=Ready --timeout=1s $NODES >/dev/null 2>&1
}

COUNTS='{range .items[*]}{.metadata.name}|{.metadata.generation}|{.status.observedGeneration}'
COUNTS="$COUNTS|{.status.desiredNumberScheduled}{.spec.replicas}|{.status.replicas}"
COUNTS="$COUNTS|{.status.updatedNumberScheduled}{.status.updatedReplicas}|{.status.numberReady}{.status.readyReplicas}"
COUNTS="$COUNTS|{.status.numberAvailable}{.status.availableReplicas}"'{"\n"}{end}'

# Workloads that are not rolled out, one a line. The first time Ready is enough: what is there beside
# them is the temporary control plane, and it waits for more.
unsettled() {
  # shellcheck disable=SC2086
  kube get $WORKLOADS --output=jsonpath="$COUNTS" >counts || return 1
  while IFS='|' read -r name generation observed wanted replicas updated ready available; do
    [ "$first" = no ] || available=$ready
    if [ "${observed:-0}" -lt "$generation" ] || [ "${updated:-0}" -lt "$wanted" ] ||
      [ "${replicas:-0}" -gt "${updated:-0}" ] || [ "${available:-0}" -lt "$wanted" ]; then
      echo "$name is not rolled out; ${ready:-0} of ${wanted:-0} pods serve"
    fi
  done <counts
}

# The DaemonSet controller looks at a new pod again after minReadySeconds, but forgets to if it was already going to
# look at an earlier pod before then. Any change of a pod makes it look.
touch_unsettled() {
  names=none
  while read -r name _; do names="$names,$name"; done <unsettled
  kube annotate pods --selector="app.kubernetes.io/name in ($names)" --overwrite \
    "kubepivot.dev/awaited=$(($(date +%s) / 5))" >/dev/null 2>&1 || true
}

backs_off() { # workload: one of its containers crashes again and again, or its image cannot be had
  kube get pods --selector="app.kubernetes.io/name=$1" --output=jsonpath='{..waiting.reason}' | grep -q BackOff
}

hopeless() { # a roll has had its time, and whatever is not done yet backs off
  [ "$first" = no ] && [ "$(date +%s)" -ge "$patience" ] || return 1
  while read -r name _; do backs_off "$name" || return 1; done <unsettled
}

decided() { # all is well, or will not be
  nodes_ready || return 1
  [ "$first" = no ] || real_apiserver_answers || return 1
  unsettled >unsettled.new 2>/dev/null || return 1
  mv unsettled.new unsettled
  [ -s unsettled ] || return 0
  touch_unsettled
  hopeless
}

# What went wrong, in a bounded number of bounded lines.
quote() { cut -c 1-300 | sed 's/^/    | /'; }

# Of the one before, which has said all it had to say; one that crashes may have begun just now. A log may be going
# with its container.
last_lines() { # pod, container
  for previous in true false; do
    lines=$(kube logs "$1" --container="$2" --tail=8 --previous="$previous" 2>/dev/null)
    case $lines in "" | "unable to retrieve container logs"*) ;; *) return 0 ;; esac
  done
  return 1
}
explain_container() { # pod, container; one whose image cannot be had has no log
  (wait_for 2 "a log" last_lines "$1" "$2" 2>/dev/null && printf '%s\n' "$lines" | quote)
}

STATE='{.ready}|{.name}|{.restartCount}|{.state.waiting.reason}{.state.terminated.reason}|{.state.waiting.message}'
EACH="$STATE"'{"\n"}{end}'
CONTAINERS="{range .status.initContainerStatuses[*]}$EACH{range .status.containerStatuses[*]}$EACH"
explain_pod() {
  kube get "pod/$1" --output=jsonpath="$CONTAINERS" | cut -c 1-400 |
    while IFS='|' read -r ready name restarts reason message; do
      if [ "$ready" = false ] && [ "$reason" != PodInitializing ]; then
        echo "  pod $1, container $name: ${reason:-not Ready}, restarted $restarts times. $message"
        explain_container "$1" "$name" </dev/null
      fi
    done
  kube get events --field-selector="type=Warning,involvedObject.name=$1" --sort-by=.lastTimestamp \
    --output=jsonpath='{range .items[*]}{.message}{"\n"}{end}' | tail -n 1 | grep -iv 'back-\?off' | quote
}

PODS='{range .items[*]}{.metadata.name}|{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
stuck() { # puts down which pods of this name are not Ready
  kube get pods --selector="app.kubernetes.io/name=$1" --output=jsonpath="$PODS" | grep -v '|True$' | head -n 2 >stuck
  [ -s stuck ]
}
FORBIDDEN='{range .items[*]}{.involvedObject.name}|{.message}{"\n"}{end}'
forbidden() { # why no pod of this name is made: a quota, a webhook or a policy says so to its DaemonSet or ReplicaSet
  kube get events --field-selector=type=Warning,reason=FailedCreate --sort-by=.lastTimestamp \
    --output=jsonpath="$FORBIDDEN" | sed -nE "s/^$1(-[a-z0-9]+)?\|//p" | tail -n 1
}
explain_pods() { # of this name; one that crashes may be Ready for a moment
  if (wait_for 5 "a pod that is not Ready" stuck "$1") 2>/dev/null; then
    while IFS='|' read -r pod _; do explain_pod "$pod" </dev/null; done <stuck
  else
    forbidden "$1" | quote
  fi
}

explain() {
  set +e # as much as can be had
  nodes_ready || kube get nodes
  [ "$first" = no ] || real_apiserver_answers || echo "the self-hosted kube-apiserver does not answer yet"
  unsettled >unsettled
  while IFS= read -r line; do
    echo "--- $line"
    explain_pods "${line%% *}" </dev/null
    given=$(sed -n "s/^${line%% *} //p" overrides)
    [ -z "$given" ] || echo "  If you changed it, put back $given."
  done <unsettled
  if [ "$first" = yes ]; then
    for name in apiserver controller-manager scheduler; do explain_pods "bootstrap-$name"; done
    echo "The temporary control plane stays. When the cause is gone, run 'pulumi up' again."
  else
    echo "What is Ready goes on serving. When the cause is gone, run 'pulumi up' again."
  fi
}

await_rollout() {
  seconds=$ROLL_SECONDS patience=$(($(date +%s) + 60))
  [ "$first" = no ] || seconds=$((seconds + 120)) # images of everything have to come
  : >unsettled
  (wait_for "$seconds" "every node to be Ready and every workload to be rolled out" decided) && [ ! -s unsettled ] ||
    { explain >&2; exit 1; }
}
