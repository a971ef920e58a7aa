# Whether the pods of every node reach a Service on another node, for which each node gets a pod for a while. Sourced by
# retire.sh, so it has no shebang. Asked for only after nodes or what carries their traffic have changed.
checked=/var/lib/kubepivot/network-checked

network_changed() { [ -n "$NETWORK" ] && [ "$(cat "$checked" 2>/dev/null)" != "$NETWORK" ]; }

make_check_pods() { # whose Service has an address before they ask there
  kube apply --filename=network-check-service.yaml --validate=false >/dev/null &&
    address=$(kube get service/network-check --output=jsonpath='{.spec.clusterIP}') &&
    sed "s/@SERVICE_IP@/$address/" network-check.yaml >network-check-here.yaml &&
    kube apply --filename=network-check-here.yaml --validate=false >/dev/null
}
ON_NODES='{range .items[*]}{.spec.nodeName}|{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
connected() { # every node's pod is Ready; puts down those whose is not
  kube get pods --selector=app.kubernetes.io/name=network-check --output=jsonpath="$ON_NODES" >check-pods || return 1
  for node in $NODES; do grep -qxF "${node#node/}|True" check-pods || echo "${node#node/}"; done >cut-off
  [ ! -s cut-off ]
}
delete_check() { kube delete daemonset/network-check service/network-check --ignore-not-found --wait=false >/dev/null; }
check_gone() { delete_check && gone network-check-; }

begin_network_check() {
  network_changed || return 0
  # Also when something else fails the hand-over.
  trap delete_check EXIT
  wait_for 60 "the network check to be made" make_check_pods
}
await_network() {
  if network_changed; then
    if ! (wait_for 60 "the pods of every node to reach a Service on another node" connected); then
      {
        echo "These nodes' pods reach no Service on another node: $(paste -sd ' ' cut-off)"
        (set +e; explain_pods network-check)
        echo "A firewall drops what one of them forwards, or what they send each other: look at 'nft list ruleset' there."
        echo "What has to pass is in docs/operations.md. Then run 'pulumi up' again."
      } >&2
      exit 1
    fi
    record "$checked" "$NETWORK"
  fi
  wait_for 60 "the pods of the network check to be gone" check_gone
}
