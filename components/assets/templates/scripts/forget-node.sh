#!/bin/sh
# Runs before the kubelet starts, which is when it registers its Node. `forget-node ENDPOINT NAME`
# Of a Node that somebody has deleted the pods may still run here. The new one gets another range of addresses, and in
# the old one no other node reaches them; flannel has a lease for the old one and never asks for another. So their
# sandboxes end, and flannel. The kubelet makes all of them anew; those of the host's network go on.
set -eu
credential=/var/lib/kubelet/pki/kubelet-client-current.pem
[ -e "$credential" ] || exit 0 # there was no Node yet
# Without an answer nothing is known.
status=$(curl --silent --output /dev/null --write-out '%{http_code}' --noproxy '*' --connect-timeout 3 --max-time 10 \
  --cacert /etc/kubernetes/pki/ca.crt --cert "$credential" --key "$credential" "$1/api/v1/nodes/$2") || exit 0
[ "$status" = 404 ] || exit 0

ctr() { command ctr --namespace k8s.io "$@"; }
sandboxes=$(ctr containers list --quiet 'labels."io.cri-containerd.kind"==sandbox')
ended=0
for sandbox in $sandboxes; do
  ctr containers info "$sandbox" | grep -q '/netns/cni-' || continue # the host's network
  ! ctr tasks kill --signal SIGKILL "$sandbox" 2>/dev/null || ended=$((ended + 1))
done
# What the plugin reads and what it made: without them it makes no new sandbox in the old range.
rm -f /run/flannel/subnet.env
! ip link show dev cni0 >/dev/null 2>&1 || ip link delete dev cni0
flannel=$(ctr containers list --quiet 'labels."io.kubernetes.pod.namespace"==kube-system,labels."io.kubernetes.container.name"==flannel')
for container in $flannel; do
  ctr tasks kill --signal SIGTERM "$container" 2>/dev/null || true # it has ended
done
echo "the API has no Node $2: $ended pods of it start anew, in the range of the next"
