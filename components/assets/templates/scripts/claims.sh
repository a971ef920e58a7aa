# What kubepivot puts on a host, and the record of what it made there: a reset removes that and nothing else.
# Sourced after `lib.sh`; needs $ROLE and $network_*, which stand before it. A line of the record is a kind and a path:
#   file       was not there
#   tree       a directory that was not there: it goes with all that is in it
#   content    a directory that was there, empty: what is in it goes. It may be a disk, or a link to one
#   directory  was not there, and others may use it by now: it goes if it is empty
made=/etc/kubernetes/kubepivot.made

trees="/etc/cni/net.d /etc/containerd /etc/kubernetes /opt/cni/bin /run/containerd $network_trees /run/nri
  /usr/local/libexec/kubepivot /var/lib/cni /var/lib/containerd /var/lib/kubelet /var/lib/kubepivot
  /var/log/containers /var/log/pods"
# containerd-stress is of hosts that an earlier program has set up.
files="/etc/modules-load.d/kubepivot.conf /etc/sysctl.d/90-kubepivot.conf
  /etc/systemd/system/containerd.service /etc/systemd/system/kubelet.service
  /etc/systemd/system/kubepivot-node.service
  /usr/local/bin/containerd /usr/local/bin/containerd-shim-runc-v2 /usr/local/bin/containerd-stress
  /usr/local/bin/ctr /usr/local/bin/kubelet"
# Made by the kubelet, containerd and the CNI plugins, which share them with drivers and plugins of others.
directories="/etc/cni /opt/cni /opt/containerd /opt/containerd/bin /opt/containerd/lib /run/netns
  /usr/libexec/kubernetes /usr/libexec/kubernetes/kubelet-plugins /usr/libexec/kubernetes/kubelet-plugins/volume
  /usr/libexec/kubernetes/kubelet-plugins/volume/exec /usr/local/libexec"
if [ "$ROLE" = controller ]; then
  trees="$trees /var/lib/etcd"
  files="$files /etc/systemd/system/kubepivot-backup.service /etc/systemd/system/kubepivot-backup.timer
    /etc/systemd/system/kubepivot-checkpoints.service
    /usr/local/bin/etcdctl /usr/local/bin/etcdutl /usr/local/bin/kubectl"
fi

# What the cluster's programs make in the packet filter is known by its name.
tables="(ip|ip6) (kube-proxy|cni_hostport)|inet cni_plugins_masquerade|$network_tables"
chains="(KUBE-|CNI-|$network_chains)"
links="cni0 $network_links"

is_claimed() { # PATH
  case $claims$nl in *" $1$nl"*) return 0 ;; esac
  return 1
}

read_mounts() { mounts=$(awk '{ print $2 }' /proc/mounts | while read -r path; do printf '%b\n' "$path"; done); }
is_mounted() { # PATH
  case $nl$mounts$nl in *"$nl$1$nl"*) return 0 ;; esac
  return 1
}

is_empty() { # DIRECTORY
  [ -z "$(ls -A "$1" | grep -vxE 'lost\+found|kubepivot\.(cluster|made)(\.new)?')" ]
}

# Reads the record. A host that was installed before there was one is carried over: what is there by these names
# is taken for the installation's, which began with empty directories only.
read_claims() {
  claims=$(cat "$made" 2>/dev/null || true) carried=""
  read_mounts
  [ -n "$claims" ] || carried=yes
}

note() { # KIND PATH
  claims="$claims${claims:+$nl}$1 $2"
}

# claim KIND PATH...: notes what is not recorded yet and is not there either. Nothing may be made before
# `save_claims`.
claim() {
  kind=$1
  shift
  for path; do
    ! is_claimed "$path" || continue
    found=""
    if [ -e "$path" ] || [ -L "$path" ]; then found=yes; fi
    if [ "$kind" = tree ] && { [ -L "$path" ] || is_mounted "$path"; }; then
      note content "$path"
    elif [ -z "$found" ] || [ -n "$carried" ]; then
      note "$kind" "$path"
    elif [ "$kind" = tree ] && is_empty "$path"; then
      note content "$path"
    elif [ "$kind" != directory ]; then
      die "$path is there already and was not put there by kubepivot: move it away"
    fi
    parent=${path%/*}
    while [ -n "$parent" ] && [ ! -e "$parent" ]; do
      is_claimed "$parent" || note directory "$parent"
      parent=${parent%/*}
    done
  done
}

claim_all() {
  if [ -n "$carried" ]; then
    # At these nobody had looked: what others had put there stays.
    claim directory /etc/containerd /var/lib/cni
    claim file /etc/containerd/config.toml
    claim tree /etc/containerd/certs.d /var/lib/cni/flannel /var/lib/cni/networks /var/lib/cni/results
  fi
  # shellcheck disable=SC2086
  claim tree $trees
  # shellcheck disable=SC2086
  claim file $files
  # shellcheck disable=SC2086
  claim directory $directories
  [ ! -e /var/lib/kubepivot/runc ] || claim file /usr/local/bin/runc
}

save_claims() {
  [ "$claims" != "$(cat "$made" 2>/dev/null)" ] || return 0
  mkdir -p "${made%/*}"
  record "$made" "$claims"
}
