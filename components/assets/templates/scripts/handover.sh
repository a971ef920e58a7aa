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
end_leaders() { # ends the temporary ones, both at once as neither needs the other, and waits until the real ones lead
  manager=$(lease kube-controller-manager) || manager=" " # not known: has to be renewed
  scheduler=$(lease kube-scheduler) || scheduler=" "
  rm -f "$MANIFESTS/bootstrap-controller-manager.yaml" "$MANIFESTS/bootstrap-scheduler.yaml"
  wait_for 60 "the temporary controller manager and scheduler to be gone" gone controller-manager scheduler
  since=$(date -u +%Y-%m-%dT%H:%M:%S.%N)
  wait_for 60 "the self-hosted kube-controller-manager to lead" \
    led_since kube-controller-manager "${manager#* }" "$since"
  wait_for 60 "the self-hosted kube-scheduler to lead" led_since kube-scheduler "${scheduler#* }" "$since"
}

in_a_row=0
steady() {
  if real_apiserver_answers && endpoint_is_ready; then in_a_row=$((in_a_row + 1)); else in_a_row=0; fi
  [ "$in_a_row" -ge 5 ]
}

# Its pods come while the rest goes on.
begin_network_check

# The secrets go last: as long as they are there, something is left to do.
if [ -e /etc/kubernetes/bootstrap-secrets ] || [ ! -e /var/lib/kubepivot/pivoted ]; then
  wait_for 60 "the self-hosted kube-apiserver to answer at port $API_PORT" real_apiserver_answers
  # Without them a reboot would end the cluster.
  (wait_for 120 "the control plane's checkpoints in /etc/kubernetes/checkpoints" \
    saved kube-system-DaemonSet-kube-apiserver kube-system-DaemonSet-pod-checkpointer) ||
    { kube_system logs daemonset/pod-checkpointer --tail=8 >&2; exit 1; }
  end_leaders
  record /var/lib/kubepivot/pivoted ""
  rm -f "$MANIFESTS/bootstrap-apiserver.yaml"
  wait_for 120 "the temporary control plane to be gone" gone apiserver controller-manager scheduler
  PAUSE=0.1 wait_for 60 "the API to answer five times in a row" steady
  rm -rf /etc/kubernetes/bootstrap-secrets
  sync /etc/kubernetes /etc/kubernetes/manifests # what is gone stays so after a power cut
fi

await_network
await_check_gone
prune
