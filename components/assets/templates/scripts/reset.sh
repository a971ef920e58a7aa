# Gives a host back as it was: everything that `node.sh` and the kubelet made goes. Converges.
# A step that outlived a killed `pulumi up` would go on making what is removed here.
exec 9>/run/kubepivot.lock
if ! flock --wait 120 9; then
  echo "a step of another run still works on this host and holds /run/kubepivot.lock" >&2
  exit 1
fi
# What a step that was killed has left, secrets among it: whoever holds the lock is the only one.
rm -rf /run/kubepivot.??????
owner=$(cat /etc/kubernetes/kubepivot.cluster 2>/dev/null || true)
if [ -z "$owner" ]; then # nothing was installed here
  rm -rf /run/kubepivot.lock /var/cache/kubepivot
  exit 0
fi
if [ "$owner" != "$CLUSTER/$NAME" ]; then
  echo "the host is $owner by now: left alone"
  exit 0
fi
systemctl disable --now --quiet kubepivot-node 2>/dev/null || true
systemctl disable --now --quiet kubelet 2>/dev/null || true
systemctl disable --now --quiet kubepivot-checkpoints 2>/dev/null || true
systemctl disable --now --quiet kubepivot-backup.timer 2>/dev/null || true
systemctl stop --quiet kubepivot-backup.service 2>/dev/null || true
# The shims outlive containerd by design; each ends with its container.
for task in $(ctr --namespace k8s.io tasks list --quiet 2>/dev/null); do
  ctr --namespace k8s.io tasks kill --signal SIGKILL --all "$task" 2>/dev/null || true
done
deadline=$(($(date +%s) + 20))
while [ -n "$(ctr --namespace k8s.io tasks list 2>/dev/null | awk 'NR > 1 && $3 == "RUNNING"')" ] && [ "$(date +%s)" -lt "$deadline" ]; do
  sleep 0.2
done
for container in $(ctr --namespace k8s.io containers list --quiet 2>/dev/null); do
  ctr --namespace k8s.io tasks delete --force "$container" >/dev/null 2>&1 || true
  ctr --namespace k8s.io containers delete "$container" >/dev/null 2>&1 || true
done
systemctl disable --now --quiet containerd 2>/dev/null || true
for process in /proc/[0-9]*; do
  [ "$(readlink "$process/exe" || true)" != /usr/local/bin/containerd-shim-runc-v2 ] || kill -9 "${process#/proc/}"
done
for mount in $(awk '$2 ~ "^(/run/containerd/|/var/lib/containerd/|/var/lib/kubelet/|/run/netns/cni-)" { print $2 }' /proc/mounts | sort -r); do
  umount --lazy "$mount"
done
# Other software has veths of its own.
for link in $(ip -o link show type veth master cni0 2>/dev/null | awk -F'[ @:]+' '{ print $2 }') cni0 flannel.1; do
  ip link delete "$link" 2>/dev/null || true
done
rm -f /run/netns/cni-*
rmdir /run/netns 2>/dev/null || true
for table in "ip kube-proxy" "ip6 kube-proxy" "ip flannel-ipv4" "ip6 flannel-ipv6"; do
  # shellcheck disable=SC2086
  nft delete table $table 2>/dev/null || true
done
# The kubelet and the CNI plugins use the tables of iptables: their chains go, and tables that are empty then
# go unless they were there before.
for iptables in iptables ip6tables; do
  command -v "$iptables" >/dev/null || continue
  for table in filter nat mangle; do
    $iptables --wait --table "$table" --list-rules 2>/dev/null | grep -E '^-A .*-j (KUBE|CNI|FLANNEL)-' | sed 's/^-A/-D/' |
      while read -r rule; do echo "$rule" | xargs "$iptables" --wait --table "$table"; done
    chains=$($iptables --wait --table "$table" --list-rules 2>/dev/null | sed -nE 's/^-N ((KUBE|CNI|FLANNEL)-.*)/\1/p')
    for chain in $chains; do $iptables --wait --table "$table" --flush "$chain"; done
    for chain in $chains; do $iptables --wait --table "$table" --delete-chain "$chain"; done
  done
done
nft list tables 2>/dev/null | while read -r _ table; do
  # shellcheck disable=SC2086
  grep -qsx "table $table" /var/lib/kubepivot/tables-before ||
    nft list table $table | grep -Ev '^table|^[[:space:]]*(chain|type|})|^}|^#|^$' | grep -q . || nft delete table $table
done
sysctl --quiet --load /var/lib/kubepivot/sysctl-before.conf 2>/dev/null || true
rm -f /etc/systemd/system/kubelet.service /etc/systemd/system/containerd.service \
  /etc/systemd/system/kubepivot-node.service \
  /etc/systemd/system/kubepivot-checkpoints.service \
  /etc/systemd/system/kubepivot-backup.service /etc/systemd/system/kubepivot-backup.timer \
  /etc/sysctl.d/90-kubepivot.conf /etc/modules-load.d/kubepivot.conf
systemctl daemon-reload
rm -f /usr/local/bin/kubelet /usr/local/bin/kubectl /usr/local/bin/containerd \
  /usr/local/bin/containerd-shim-runc-v2 /usr/local/bin/containerd-stress /usr/local/bin/ctr \
  /usr/local/bin/etcdctl /usr/local/bin/etcdutl
rm -rf /usr/local/libexec/kubepivot
rmdir /usr/local/libexec 2>/dev/null || true
[ ! -e /var/lib/kubepivot/runc ] || rm -f /usr/local/bin/runc
remove() { # directories; one that is a disk of its own is emptied, and the disk stays where it is mounted
  for directory in "$@"; do
    if grep -qF " $directory " /proc/mounts; then
      find "$directory" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
    else
      rm -rf "$directory"
    fi
  done
}
remove /etc/containerd /etc/cni /opt/cni /opt/containerd /var/lib/kubelet /var/lib/etcd /var/lib/containerd \
  /var/lib/cni /var/lib/kubepivot /var/log/pods /var/log/containers /run/containerd /run/flannel /run/nri \
  /run/kubepivot.lock /usr/libexec/kubernetes /var/cache/kubepivot
# Last, because it says whose the host is: a reset that was cut short has to find it.
remove /etc/kubernetes
