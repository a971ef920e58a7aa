# Hands over from the temporary control plane to the real one, where that has not been done. Whoever runs this has seen
# before that the real one's pods are Ready: the rollout, or a recovery.
. ./env
. ./lib.sh
. ./network-check.sh
. ./prune.sh

ask_api_directly
MANIFESTS=/etc/kubernetes/manifests
kube_system() { kube --namespace=kube-system "$@"; }

real_apiserver_answers() { answers_as kube-apiserver "$INCUMBENT"; }
gone() { # pods of the temporary control plane. A static pod's name ends with its node's; others' may begin alike
  pods=$(kube_system get pods --output=name) || return 1
  for each in "$@"; do
    ! printf '%s\n' "$pods" | grep -qxF "pod/bootstrap-$each-$NAME" || return 1
  done
}
ended() { # containers of these components in the temporary control plane's pods, which go some seconds later
  for each in "$@"; do
    found=$(running "kube-$each" "labels.\"io.kubernetes.pod.name\"==bootstrap-$each-$NAME") || return 1
    [ -z "$found" ] || return 1
  done
}
saved() { # there is a whole checkpoint of each of these owners
  for owner in "$@"; do /usr/local/libexec/kubepivot/arm-checkpoints --check "$owner" || return 1; done
}
lease() { kube_system get lease "$1" --output=jsonpath='{.spec.renewTime} {.spec.holderIdentity}'; }
led_since() { # lease, who had it before, time: somebody else holds it, or it was renewed after that time
  lease=$(lease "$1") || return 1
  renewed=${lease%% *} holder=${lease#* }
  [ -n "$holder" ] || return 1
  if [ -n "$2" ] && [ "$holder" != "$2" ]; then return 0; fi
  [ "$renewed" != "$3" ] && [ "$(printf '%s\n' "$renewed" "$3" | sort | tail -n 1)" = "$renewed" ]
}
# The manifests of the temporary leaders wait under names that the kubelet passes over, in case the real ones never lead.
LEADERS="controller-manager scheduler"
end_leaders() { # both at once, as neither needs the other
  manager=$(lease kube-controller-manager) || manager=" " # not known: has to be renewed
  scheduler=$(lease kube-scheduler) || scheduler=" "
  ending=yes
  for each in $LEADERS; do
    manifest=bootstrap-$each.yaml
    [ ! -e "$MANIFESTS/$manifest" ] || mv -f "$MANIFESTS/$manifest" "$MANIFESTS/.$manifest"
  done
}
put_back_leaders() {
  for each in $LEADERS; do
    manifest=bootstrap-$each.yaml
    [ ! -e "$MANIFESTS/.$manifest" ] || mv -f "$MANIFESTS/.$manifest" "$MANIFESTS/$manifest"
  done
}
await_leaders() {
  # shellcheck disable=SC2086
  wait_for 60 "the temporary controller manager and scheduler to end" ended $LEADERS
  since=$(date -u +%Y-%m-%dT%H:%M:%S.%N)
  wait_for 60 "the self-hosted kube-controller-manager to lead" \
    led_since kube-controller-manager "${manager#* }" "$since"
  wait_for 60 "the self-hosted kube-scheduler to lead" led_since kube-scheduler "${scheduler#* }" "$since"
  ending=""
}

in_a_row=0
steady() {
  if real_apiserver_answers && endpoint_is_ready; then in_a_row=$((in_a_row + 1)); else in_a_row=0; fi
  [ "$in_a_row" -ge 5 ]
}

ending="" checking=""
undo() {
  [ -z "$ending" ] || put_back_leaders
  [ -z "$checking" ] || delete_check || true
}
trap undo EXIT
trap 'exit 143' HUP INT TERM # by its deadline

# Its pods come while the rest goes on.
begin_network_check

# The secrets go last: as long as they are there, something is left to do.
if [ -e /etc/kubernetes/bootstrap-secrets ] || [ ! -e /var/lib/kubepivot/pivoted ]; then
  wait_for 60 "the self-hosted kube-apiserver to answer at port $API_PORT" real_apiserver_answers
  # That takes as long as the checkpoints; they are put back if these don't come.
  end_leaders
  # Without them a reboot would end the cluster.
  (wait_for 120 "the control plane's checkpoints in /etc/kubernetes/checkpoints" \
    saved kube-system-DaemonSet-kube-apiserver kube-system-DaemonSet-pod-checkpointer) ||
    { kube_system logs daemonset/pod-checkpointer --tail=8 >&2; exit 1; }
  await_leaders
  record /var/lib/kubepivot/pivoted ""
  rm -f "$MANIFESTS/bootstrap-apiserver.yaml"
  wait_for 120 "the temporary kube-apiserver to end" ended apiserver
  PAUSE=0.1 wait_for 60 "the API to answer five times in a row" steady
fi

await_network
await_check_gone
if [ -e /etc/kubernetes/bootstrap-secrets ]; then
  wait_for 60 "the pods of the temporary control plane to be gone" gone apiserver controller-manager scheduler
  for each in $LEADERS; do rm -f "$MANIFESTS/.bootstrap-$each.yaml"; done
  rm -rf /etc/kubernetes/bootstrap-secrets
  sync /etc/kubernetes /etc/kubernetes/manifests # what is gone stays so after a power cut
fi
prune
