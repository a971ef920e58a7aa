# Makes the host a node: container runtime, CNI plugins, kubelet and, on a controller, etcd. Converges.
. ./download

# What will be made is recorded first: whenever the power fails, a reset finds it.
. ./claims
read_claims
# Without a mark a record is of an installation that never began.
[ "$marked" = "$CLUSTER/$NAME" ] || claims="" carried=""
claim_all
case " $missing " in *" runc "*) claim file /usr/local/bin/runc ;; esac
for file in $(cd root && find . -type f | sed 's/^\.//' | sort); do
  in_tree=""
  for tree in $trees; do case $file in "$tree"/*) in_tree=yes ;; esac; done
  [ -n "$in_tree" ] || claim file "$file"
done
save_claims
if [ "$marked" != "$CLUSTER/$NAME" ]; then
  # With an empty mark the host would be nobody's, and no reset would clean it.
  record "$mark" "$CLUSTER/$NAME"
fi
mkdir -p /var/lib/kubepivot

. ./stage
# A node that serves is not restarted here: `upgrade.sh` does so, one host after another. Where the kubelet is down there
# is nothing to spare, nor where its last change was not seen to serve: what mends it would wait for the node. At another
# address it serves nobody.
deferring=""
if [ -e "$last_change" ] && [ ! -e "$unproven" ] && systemctl is-active --quiet containerd && kubelet_is_healthy &&
  grep -qs -- "--node-ip=$ADDRESS " /etc/systemd/system/kubelet.service; then
  deferring=yes
fi

now=""
for part in $missing; do
  case " $staged_parts " in *" $part "*) ;; *) now="$now $part" ;; esac
done
# shellcheck disable=SC2086
install_parts "$downloads" $now

# What depends on the machine is found out here.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then systemd_cgroup=true; else systemd_cgroup=false; fi
capabilities=$(awk '/^CapBnd:/ { print $2 }' /proc/self/status)
if [ $((0x$capabilities >> 24 & 1)) = 1 ]; then restrict_oom=false; else restrict_oom=true; fi
mkdir -p root/etc/containerd
sed -e "s|@RESTRICT_OOM_SCORE_ADJ@|$restrict_oom|" -e "s|@SYSTEMD_CGROUP@|$systemd_cgroup|" \
  -e "s|@RUNC@|$(command -v runc)|" containerd.toml >root/etc/containerd/config.toml
chmod 0644 root/etc/containerd/config.toml

# CoreDNS forwards to this file; a resolver on the loopback would send its questions back to it.
resolver=""
for file in /etc/resolv.conf /run/systemd/resolve/resolv.conf; do
  if [ -z "$resolver" ] && grep -qs '^nameserver' "$file" && ! grep -Eqs '^nameserver[[:space:]]+(127\.|::1)' "$file"; then
    resolver=$file
  fi
done
if [ -n "$resolver" ]; then
  ln -sfn "$resolver" /etc/kubernetes/resolv.conf
else
  # With neither, as where nothing lies outside, names of outside fail at once: nobody answers at the host itself.
  ip route show default | awk -v server="$ADDRESS" '$2 == "via" { server = $3; exit } END { print "nameserver " server }' \
    >/etc/kubernetes/resolv.conf.new
  chmod 0644 /etc/kubernetes/resolv.conf.new
  put /etc/kubernetes/resolv.conf.new /etc/kubernetes/resolv.conf
fi
sync /etc/kubernetes

if [ "$ROLE" = controller ]; then
  keep_user root/etc/kubernetes/manifests/etcd.yaml
  give_uid root/etc/kubernetes/manifests/etcd.yaml
  install -d -o "$CONTROL_PLANE_UID" -g "$CONTROL_PLANE_UID" -m 0700 /etc/kubernetes/pki/etcd
  # Made once: with data that were lost etcd would begin an empty cluster, for which kubelets end every pod.
  # Without the directories it does not start.
  if [ ! -e /var/lib/kubepivot/etcd-data ]; then
    install -d -o "$CONTROL_PLANE_UID" -g "$CONTROL_PLANE_UID" -m 0700 /var/lib/etcd /var/lib/etcd/member
    sync /var/lib /var/lib/etcd
    record /var/lib/kubepivot/etcd-data ""
  fi
fi
install -d -m 0755 /etc/cni/net.d /opt/cni/bin /etc/kubernetes/manifests
# An etcd that serves is not changed here: `etcd.sh` swaps it, one controller after another.
last_etcd_change=/var/lib/kubepivot/last-etcd-change
if [ "$ROLE" = controller ] && [ -e /etc/kubernetes/manifests/etcd.yaml ] &&
  ! etcd_is_down root/etc/kubernetes/manifests/etcd.yaml; then
  changes=""
  for file in /etc/kubernetes/etcd.conf.yml /etc/kubernetes/manifests/etcd.yaml; do
    is_placed "$file" || changes=yes
    rm "root$file"
  done
  [ -z "$changes" ] || record "$last_etcd_change" "$(cat /proc/sys/kernel/random/uuid)"
fi
stage_changes
place
[ -n "$deferring" ] || swap_in
# A mirror that the config no longer has would still be asked.
for registry in /etc/containerd/certs.d/*; do
  [ -e "root$registry" ] || rm -rf "$registry"
done
# The kubelet renews its certificate by pointing this link at another file. One that Pulumi has renewed takes over: a host
# that was off for long may have none that is still valid.
if has_changed "$identity" || [ ! -e /var/lib/kubelet/pki/kubelet-client-current.pem ]; then
  ln -sfn "${identity##*/}" /var/lib/kubelet/pki/kubelet-client-current.pem
  sync /var/lib/kubelet/pki
fi
# Clusters of before had a token there that named any node.
rm -f /etc/kubernetes/bootstrap.kubeconfig

modprobe --all overlay br_netfilter 2>/dev/null || [ -e /proc/sys/net/bridge ] || die "cannot load br_netfilter"
# What `reset.sh` puts back.
before=/var/lib/kubepivot/sysctl-before.conf
if [ ! -e "$before" ]; then
  nft list tables >/var/lib/kubepivot/tables-before 2>/dev/null || true
  sysctl $(sed -n 's/^\([a-z].*\) = .*/\1/p' /etc/sysctl.d/90-kubepivot.conf) >"$before.new"
  put "$before.new" "$before"
fi
sysctl --quiet --load /etc/sysctl.d/90-kubepivot.conf || die "cannot set what /etc/sysctl.d/90-kubepivot.conf says"

unit=kubepivot-node.service
timer=kubepivot-backup.timer
units="containerd kubelet $unit"
# The checkpoints' runs at boots only: now the kubelet has its pods from the API.
[ "$ROLE" != controller ] || units="$units $timer kubepivot-checkpoints"
# All at once: it has systemd read every unit again, each time.
# shellcheck disable=SC2086
systemctl enable --quiet $units
if has_changed "/etc/systemd/system/$unit" /usr/local/libexec/kubepivot/keep-node /etc/kubernetes/node.env ||
  ! systemctl is-active --quiet "$unit"; then
  systemctl restart "$unit"
fi
if [ "$ROLE" = controller ] &&
  { has_changed "/etc/systemd/system/$timer" || ! systemctl is-active --quiet "$timer"; }; then
  systemctl restart "$timer"
fi
restart_changed
[ -n "$deferring" ] || discard_stage
[ -e "$last_change" ] || record "$last_change" none
[ "$ROLE" != controller ] || [ -e "$last_etcd_change" ] || record "$last_etcd_change" none

# Copies snapshots. It is published in .zip archives, which few hosts can unpack; its image has the same binary.
rclone=/usr/local/libexec/kubepivot/rclone
if [ -z "$RCLONE_IMAGE" ]; then
  rm -f "$rclone" /var/lib/kubepivot/rclone
elif [ "$(cat /var/lib/kubepivot/rclone 2>/dev/null)" != "$RCLONE_IMAGE" ]; then
  images="ctr --namespace kubepivot images"
  said=$(timeout 300 $images pull --hosts-dir /etc/containerd/certs.d "$RCLONE_IMAGE" 2>&1) ||
    die "cannot pull $RCLONE_IMAGE for kubepivot:backup.s3: let the host reach its registry, or set a mirror in the stack's config: $(printf '%s\n' "$said" | tail -n 2)"
  rm -rf "$downloads/rclone"
  mkdir "$downloads/rclone"
  # By its other way, containerd 2.2's ctr may end before it has written all.
  $images export --local - "$RCLONE_IMAGE" | tar --extract --directory "$downloads/rclone"
  $images remove "$RCLONE_IMAGE" >/dev/null
  for layer in "$downloads"/rclone/blobs/sha256/*; do
    # Others have other files, or are no archives.
    ! tar --list --file "$layer" usr/local/bin/rclone >/dev/null 2>&1 ||
      tar --extract --file "$layer" --directory "$downloads/rclone" usr/local/bin/rclone
  done
  binary "$rclone" "$downloads/rclone/usr/local/bin/rclone"
  record /var/lib/kubepivot/rclone "$RCLONE_IMAGE"
fi
rm -rf "$downloads"
echo "change=$(cat "$last_change")"
[ "$ROLE" != controller ] || echo "etcd-change=$(cat "$last_etcd_change")"
