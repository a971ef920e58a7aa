# Whether the pods of every node reach a Service on another node, for which each node gets a pod for a while. Sourced by
# handover.sh, so it has no shebang. Asked for only after nodes or what carries their traffic have changed.
checked=/var/lib/kubepivot/network-checked

network_changed() { [ -n "$NETWORK" ] && [ "$(cat "$checked" 2>/dev/null)" != "$NETWORK" ]; }

make_check_pods() { # whose Service has an address before they ask there
  kube_system apply --filename=network-check-service.yaml --validate=false >/dev/null &&
    address=$(kube_system get service/network-check --output=jsonpath='{.spec.clusterIP}') &&
    sed "s/@SERVICE_IP@/$address/" network-check.yaml >network-check-here.yaml &&
    kube_system apply --filename=network-check-here.yaml --validate=false >/dev/null
}
ON_NODES='{range .items[*]}{.spec.nodeName}|{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
connected() { # every node's pod is Ready; puts down those whose is not
  kube_system get pods --selector=app.kubernetes.io/name=network-check --output=jsonpath="$ON_NODES" >check-pods || return 1
  for node in $NODES; do grep -qxF "$node|True" check-pods || echo "$node"; done >cut-off
  [ ! -s cut-off ]
}
WARNINGS='{range .items[*]}{.involvedObject.name}: {.message}{"\n"}{end}'
said_of_pods() { # the last two warnings of the check's pods, as far as they can be had
  kube_system get events --field-selector=type=Warning,involvedObject.kind=Pod --sort-by=.lastTimestamp \
    --output=jsonpath="$WARNINGS" | sed -n 's/^network-check-/    | &/p' | tail -n 2 | cut -c 1-300
}
delete_check() { kube_system delete daemonset/network-check service/network-check --ignore-not-found --wait=false >/dev/null; }
OF_DAEMONS='{range .items[*]}{.metadata.ownerReferences[0].kind}{"\n"}{end}' # not a worker's static pod that looks alike
check_gone() {
  delete_check &&
    kube_system get pods --selector=app.kubernetes.io/name=network-check --output=jsonpath="$OF_DAEMONS" >check-pods &&
    ! grep -qxF DaemonSet check-pods
}

begin_network_check() {
  network_changed || return 0
  checking=yes # deleted also when something else fails the hand-over
  wait_for 60 "the network check to be made" make_check_pods
}
await_network() {
  network_changed || return 0
  if ! (wait_for 60 "the pods of every node to reach a Service on another node" connected); then
    {
      echo "These nodes' pods reach no Service on another node: $(paste -sd ' ' cut-off)"
      said_of_pods
      echo "A firewall drops what one of them forwards, or what they send each other: look at 'nft list ruleset' there."
      echo "What has to pass is in docs/operations.md. Then run 'pulumi up' again."
    } >&2
    exit 1
  fi
  record "$checked" "$NETWORK"
}
await_check_gone() {
  wait_for 60 "the pods of the network check to be gone" check_gone
  checking=""
}
