# Takes a worker out of the cluster when it has left the config: its pods go elsewhere, then its Node is deleted. Of a node
# that is not Ready no pod would ever end: it is deleted with them.
. ./env
. ./lib.sh

ask_api_directly
cordoned=kubepivot.dev/cordoned
look() {
  node=$(kube get node "$WORKER" --ignore-not-found \
    --output=jsonpath='{.metadata.name} {.status.conditions[?(@.type=="Ready")].status} {.spec.unschedulable}')
}
# A host that has died of late counts as Ready for most of a minute.
still_ready() { ! look || case $node in "$WORKER True"*) ;; *) return 1 ;; esac; }
look || wait_for 60 "the API to answer" look
[ -n "$node" ] || exit 0
case $node in
  "$WORKER True"*)
    # What an admin has cordoned stays so if the drain fails. A run that was cut short has left the program's own.
    case $node in *" true") ;; *) kube annotate node "$WORKER" "$cordoned=removal" --overwrite >/dev/null ;; esac
    # shellcheck disable=SC2086
    if ! kube drain "$WORKER" --ignore-daemonsets --timeout="${DRAIN_SECONDS}s" $DRAIN_FLAGS >drained 2>&1 && still_ready; then
      tail -n 8 drained >&2
      ours=$(kube get node "$WORKER" --output=jsonpath='{.metadata.annotations.kubepivot\.dev/cordoned}') || ours=""
      if [ -z "$ours" ]; then
        left="it stays cordoned if it was"
      elif kube uncordon "$WORKER" >/dev/null && kube annotate node "$WORKER" "$cordoned-" >/dev/null; then
        left="it takes pods as before"
      else
        left="it may stay cordoned: kubectl uncordon $WORKER"
      fi
      die "$WORKER is not removed, for it can't be drained; $left. Mend that in the cluster and run 'pulumi up' again; or put $WORKER back into kubepivot:hosts, allow it in kubepivot:upgrade.drain, run 'pulumi up', and take it out after that"
    fi
    ;;
esac
kube delete node "$WORKER" --ignore-not-found --wait=false >/dev/null
