#!/bin/sh
# Keeps the host a node of its cluster. Somebody may delete its Node, and a kubelet registers only when it starts. By then
# the Node has to be there: a controller's with its role, without which kube-apiserver is taken away from it, and with
# the range that the addresses of its pods are from. A role that is missing is given back, and with one controller what
# the service `kubernetes` leads to. And where no API listens any more, nor anybody is left to start one, it does as a
# boot does.
# `keep-node --once` only makes the Node, if there is none, for a kubelet that is about to start.
set -u
. /etc/kubernetes/node.env
ARM=/usr/local/libexec/kubepivot/arm-checkpoints
KEPT=/etc/kubernetes/kept # files with the paths that their objects have in the API

KUBELET=/var/lib/kubelet/pki/kubelet-client-current.pem
CONTROLLER=/etc/kubernetes/pki/controller.pem # a kubelet may not give itself a role

ask() { # CERTIFICATE ARGUMENT...: what the API answers, and in the last line the status, 000 if there is none
  certificate=$1
  shift
  # shellcheck disable=SC2086
  curl --silent --noproxy '*' --max-time 5 --cacert /etc/kubernetes/pki/ca.crt $THROUGH --cert "$certificate" \
    --write-out '\n%{http_code}' "$@"
}
apply() { # PATH MANAGER: standard input, as `kubectl apply --server-side` does; what is so already is not written
  [ -e "$CONTROLLER" ] && login=$CONTROLLER || login=$KUBELET
  answer=$(ask "$login" --request PATCH --data-binary @- \
    --header 'Content-Type: application/apply-patch+yaml' "$API$1?fieldManager=$2&force=true")
  case $answer in
    *200) ;;
    *201) echo "made $1" ;;
    *) problems="$problems cannot apply $1: status ${answer##*[!0-9]};" ;;
  esac
}
ask_for_node() { ask "$KUBELET" "$API/api/v1/nodes/$NAME"; }
# @network@
make_node() { # labels and taints are the user's from then on: by another manager, who has no say later
  # All pods since the boot have addresses from it.
  [ -n "$range" ] || range=$(pods_range)
  found=$(sed "s|\"spec\": {|&${range:+\"podCIDR\": \"$range\", \"podCIDRs\": [\"$range\"],}|" /etc/kubernetes/node.json)
  apply "/api/v1/nodes/$NAME" kubepivot-registration <<NODE
$found
NODE
  renew_range
}

missing=0 refused=0 pause=0 range="" problems="" told=""
register() { # at most once a minute; a kubelet that somebody has stopped stays so
  [ "$pause" = 0 ] || return 0
  pause=6
  echo "$1: the kubelet registers anew"
  systemctl --no-block try-restart kubelet
}
start_api() { # unless something does so already: the pod-checkpointer after 15 s, or a step of the program
  [ -x "$ARM" ] && flock --nonblock /run/kubepivot.lock true || return 0
  for manifest in /etc/kubernetes/manifests/bootstrap-* /etc/kubernetes/manifests/*-checkpoint.json; do
    [ ! -e "$manifest" ] || return 0
  done
  "$ARM" --again
}
look() {
  problems=""
  [ "$pause" = 0 ] || pause=$((pause - 1))
  node=$(ask_for_node)
  # curl's word for a port where nobody listens.
  if [ $? = 7 ]; then refused=$((refused + 1)); else refused=0; fi
  [ "$refused" -lt 6 ] || start_api
  case $node in
    *404)
      missing=$((missing + 1))
      [ "$missing" -ge 2 ] || return 0
      make_node
      register "node $NAME is gone"
      ;;
    *200)
      missing=0
      range=$(printf '%s\n' "$node" | sed -n 's/.*"podCIDR": *"\([^"]*\)".*/\1/p')
      for path in $(cd "$KEPT" 2>/dev/null && find . -type f ! -name '.*' | sed 's/^\.//'); do
        apply "$path" kubepivot <"$KEPT$path"
      done
      # Every kubelet labels its Node so when it registers.
      case $node in *'"kubernetes.io/hostname"'*) ;; *) register "node $NAME lacks its kubelet's labels" ;; esac
      ;;
  esac
  [ -z "$problems" ] || [ "$problems" = "$told" ] || echo "${problems# }"
  told=$problems
}

if [ "${1:-}" = --once ]; then
  case $(ask_for_node) in *404) make_node ;; esac
  exit 0
fi
while :; do
  look
  # Nothing is waited for, so that there is no deadline.
  sleep 10
done
