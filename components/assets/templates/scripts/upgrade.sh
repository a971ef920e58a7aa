# Swaps in what `node.sh` has staged for containerd and the kubelet, waits until the node is Ready with it, and takes back
# the cordon of the upgrade. Who runs this has drained the node before, if it has to be. Converges.
. ./env
. ./lib.sh
. ./stage
. /etc/kubernetes/node.env # how this host's kubelet reaches the API

# Whatever fails: a kubelet that systemd can't start, or one that does not come back.
explain() {
  [ $? != 0 ] || return 0
  journalctl --unit kubelet --lines 8 --output cat --no-pager >&2 || true
  echo "error: no other host is begun, and $NAME stays cordoned. Mend what 'journalctl -u kubelet' says there, or, within a minor, put the former values back in the config; then run 'pulumi up' again" >&2
}
trap explain EXIT
trap 'exit 143' HUP INT TERM # by its deadline

# A kubelet of another minor decodes more fields of a manifest, and would compute another UID from it and start etcd anew.
keep_etcd() {
  manifest=/etc/kubernetes/manifests/etcd.yaml
  [ -e "$manifest" ] && ! grep -q '^  uid: ' "$manifest" || return 0
  export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1
  container=$(running etcd)
  [ -n "$container" ] || return 0
  mkdir -p "root${manifest%/*}"
  cp -p "$manifest" "root$manifest"
  give_uid "root$manifest" "$container"
  place
}

since=""
# Binaries that a failed step has staged are not wanted any more once the former values are back.
[ "$(cat change)" = "$(cat "$last_change")" ] || discard_stage
if [ -d "$stage" ]; then
  keep_etcd
  record "$unproven" ""
  swap_in
  systemctl daemon-reload
  since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  restart_changed
  discard_stage
fi

# A status of before the restart says nothing of the kubelet that runs now.
is_ready() {
  kubelet_is_healthy || return 1
  node=$(ask_api "/api/v1/nodes/$NAME" 2>/dev/null) || return 1
  objects=$(printf '%s' "$node" | tr -d ' \n' | tr '{}' '\n\n')
  case $objects in *"\"kubeletVersion\":\"$KUBELET_VERSION\""*) ;; *) return 1 ;; esac
  condition=$(printf '%s\n' "$objects" | grep '"type":"Ready"') || return 1
  case $condition in *'"status":"True"'*) ;; *) return 1 ;; esac
  heard=$(printf '%s\n' "$condition" | sed 's/.*"lastHeartbeatTime":"\([^"]*\)".*/\1/')
  [ -z "$since" ] || [ "$(printf '%s\n' "$since" "$heard" | sort | tail -n 1)" = "$heard" ]
}
wait_for 180 "node $NAME to be Ready with kubelet $KUBELET_VERSION" is_ready

rm -f "$unproven"

is_uncordoned() {
  node=$(ask_api "/api/v1/nodes/$NAME" 2>/dev/null) || return 1
  case $(printf '%s' "$node" | tr -d ' \n') in
    *'"kubepivot.dev/cordoned":'*)
      ask_api "/api/v1/nodes/$NAME" --output /dev/null --request PATCH \
        --header 'Content-Type: application/merge-patch+json' \
        --data '{"metadata": {"annotations": {"kubepivot.dev/cordoned": null}}, "spec": {"unschedulable": null}}'
      ;;
  esac
}
wait_for 60 "node $NAME to be uncordoned" is_uncordoned
