# Waits until every node and every workload is what it should be. Then hands over from the temporary control plane to
# the real one, where that has not been done.
. ./env
. ./lib.sh

# The API is asked directly, also where /etc/environment has a proxy for downloads.
export NO_PROXY='*' no_proxy='*'

export KUBECONFIG="$PWD/kubeconfig"
MANIFESTS=/etc/kubernetes/manifests
kube() { kubectl --cache-dir="$PWD/cache" --request-timeout=10s --namespace=kube-system "$@"; }

# Both apiservers share the port; the name in the certificate tells whom new connections reach.
real_apiserver_answers() {
  answer=$(curl --silent --verbose --fail --max-time 5 --cacert ca.crt --connect-to "::$INCUMBENT:$API_PORT" \
    "https://localhost:$API_PORT/readyz" 2>&1) || return 1
  case $answer in *"CN=kube-apiserver"*) return 0 ;; *) return 1 ;; esac
}

gone() { # pods whose name begins so
  pods=$(kube get pods --output=name) && ! printf '%s\n' "$pods" | grep -q "^pod/$1"
}

. ./rollout.sh
. ./network.sh
begin_network_check
await_rollout

saved() { # there is a whole checkpoint of each of these owners
  for owner in "$@"; do /usr/local/libexec/kubepivot/arm-checkpoints --check "$owner" || return 1; done
}
led_since() { # lease, time: somebody holds the lease and has renewed it after that time
  lease=$(kube get lease "$1" --output=jsonpath='{.spec.renewTime} {.spec.holderIdentity}') || return 1
  renewed=${lease%% *} holder=${lease#* }
  [ -n "$holder" ] && [ "$renewed" != "$2" ] && [ "$(printf '%s\n' "$renewed" "$2" | sort | tail -n 1)" = "$renewed" ]
}
retire_leader() { # component: ends the temporary one and waits until the real one leads
  rm -f "$MANIFESTS/bootstrap-${1#kube-}.yaml"
  wait_for 60 "the temporary $1 to be gone" gone "bootstrap-${1#kube-}"
  wait_for 60 "the self-hosted $1 to lead" led_since "$1" "$(date -u +%Y-%m-%dT%H:%M:%S.%N)"
}

# The secrets go last: as long as they are there, something is left to do.
if [ -e /etc/kubernetes/bootstrap-secrets ] || [ ! -e /var/lib/kubepivot/pivoted ]; then
  # Without them a reboot would end the cluster.
  (wait_for 120 "the control plane's checkpoints in /etc/kubernetes/checkpoints" \
    saved kube-system-DaemonSet-kube-apiserver kube-system-DaemonSet-pod-checkpointer) ||
    { kube logs daemonset/pod-checkpointer --tail=8 >&2; exit 1; }
  retire_leader kube-controller-manager
  retire_leader kube-scheduler
  record /var/lib/kubepivot/pivoted ""
  rm -f "$MANIFESTS/bootstrap-apiserver.yaml"
  wait_for 120 "the temporary control plane to be gone" gone bootstrap-
  rm -rf /etc/kubernetes/bootstrap-secrets
  sync /etc/kubernetes /etc/kubernetes/manifests # what is gone stays so after a power cut
fi

in_a_row=0
steady() {
  if real_apiserver_answers && curl --silent --output /dev/null --fail --max-time 5 --cacert ca.crt "$API_ENDPOINT/readyz"; then
    in_a_row=$((in_a_row + 1))
  else
    in_a_row=0
  fi
  [ "$in_a_row" -ge 5 ]
}
wait_for 60 "the API to answer five times in a row" steady
await_network

# What neither a manifest nor a pod names any more may go.
volumes=$(kube get pods \
  --output=jsonpath='{range .items[*].spec.volumes[*]}configmap/{.configMap.name} secret/{.secret.secretName} {end}')
objects=$(kube get configmaps,secrets --selector="$MOUNTED_LABEL" --output=name)
for object in $objects; do
  case " $MOUNTED $volumes " in *" $object "*) ;; *) kube delete --ignore-not-found "$object" >/dev/null ;; esac
done
