# Makes a snapshot of etcd before a newer Kubernetes or etcd changes anything, and keeps it until the next time, whatever
# kubepivot:backup lets go meanwhile. On a host that is no controller yet there is nothing to save. Converges.
. ./env
. ./lib.sh

[ -e /var/lib/kubepivot/kubelet ] || exit 0
in_place() { # PART: its version; empty where there is none, and while it is being swapped
  sed -n 's|.*/v\([0-9.]*\)/.*|\1|p' "/var/lib/kubepivot/$1" 2>/dev/null || true
}
kubelet=$(in_place kubelet)
etcd=$(in_place etcd)
# The stack of a cluster that an older kubepivot made has no record of its version.
if [ -n "$kubelet" ] && is_newer "$(minor_of "$kubelet")" "$(minor_of "$KUBERNETES")"; then
  die "kubepivot:kubernetesVersion = \"$KUBERNETES\": $NAME runs $kubelet, and $(minor_of "$KUBERNETES") may not read what that has stored: use a version of $(minor_of "$kubelet")"
fi

# What an older kubepivot set up has no staged binaries: all kubelets would be swapped at once, before kube-apiserver.
if [ -n "$kubelet" ] && [ "$(minor_of "$KUBERNETES")" != "$(minor_of "$kubelet")" ] && [ ! -e /var/lib/kubepivot/last-change ]; then
  die "kubepivot:kubernetesVersion = \"$KUBERNETES\": $NAME runs $kubelet and was set up by an earlier kubepivot: put $kubelet there and run 'pulumi up' first"
fi

# Back to an earlier version none is needed, and what is not well may be what one goes back for.
is_newer "$KUBERNETES" "$kubelet" || is_newer "$ETCD" "$etcd" || exit 0

mend="nothing has been upgraded: mend that, then run 'pulumi up' again"
# Every member's, with its alarms: with its quota used up etcd lets itself be read, and no upgrade could end.
said=$(etcd --command-timeout=10s endpoint health --cluster 2>&1) ||
  die "etcd is not healthy ($(printf '%s\n' "$said" | grep -v '^{' | paste -sd ' ')), and $mend"
# A next minor is reached from a late patch of the one before.
late=3.6.11
for version in $(etcd endpoint status --cluster --write-out=json | grep -o '"version":"[^"]*"' | cut -d '"' -f 4); do
  if [ "$(minor_of "$version")" != "$(minor_of "$ETCD")" ] && is_newer "$late" "$version"; then
    die "a member of etcd is $version, and $ETCD is reached from $late or newer: nothing has been upgraded; set kubepivot:kubernetesVersion to $kubelet, which brings such a one, and run 'pulumi up'; then upgrade"
  fi
done
told=$(/usr/local/libexec/kubepivot/backup) ||
  die "the backup of etcd that comes first has failed, and $mend. A change of kubepivot:backup needs a run of its own before, with the former version"

# A second name for it, which takes no room.
made=$(printf '%s\n' "$told" | sed -n 's/^path=//p')
kept=/var/lib/kubepivot/before-upgrade
rm -rf "$kept.new"
mkdir -m 0700 "$kept.new"
ln "$made" "$made.sha256" "$kept.new" 2>/dev/null || cp -p "$made" "$made.sha256" "$kept.new"
sync "$kept.new"/* "$kept.new"
rm -rf "$kept"
mv "$kept.new" "$kept"
sync "${kept%/*}"
echo "path=$kept/${made##*/}"
