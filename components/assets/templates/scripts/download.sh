# Downloads what the host lacks. Installs nothing: the files wait in /var/cache/kubepivot until all hosts have theirs.
# A part of `node.sh` too, which finds them there. Converges.
case $(uname -m) in aarch64) arch=arm64 ;; *) arch=amd64 ;; esac
sed -i "s/@ARCH@/$arch/" env
. ./env
. ./lib.sh

# The preflight of a run that was cut short may be days old, and the host another's by now.
mark=/etc/kubernetes/kubepivot.cluster
marked=$(cat "$mark" 2>/dev/null || true)
if [ "$marked" != "$CLUSTER/$NAME" ]; then
  found=$(sh -eu ./preflight 2>&1) || die "$found"
fi

# On a disk: the working directory is in memory, and they may be more than fits there.
downloads=/var/cache/kubepivot
mkdir -p -m 0700 "$downloads"

# fetch NAME URL SUMS: downloads the file and holds it against the sums that the same site publishes.
fetch() {
  get="curl --fail --silent --show-error --location --retry 5 --retry-connrefused --connect-timeout 10 --max-time 600"
  $get --output "$downloads/$1" "$2" || die "cannot download $2: let the host reach it, or set a mirror in the stack's config"
  sums=$($get "$3") || die "cannot download $3, the checksum of $2"
  want=$(printf '%s\n' "$sums" | awk -v name="${2##*/}" 'NF == 1 || $2 == name || $2 == "*" name { print $1; exit }')
  got=$(sha256sum "$downloads/$1" | cut -d ' ' -f 1)
  [ "$want" = "$got" ] || die "the checksum of $2 is $got, but $3 says ${want:-nothing}: the mirror is wrong or the download was damaged"
  echo "$2 $boot" >"$downloads/$1.url"
}

# A file is as it was verified as long as the power has not failed.
boot=$(cat /proc/sys/kernel/random/boot_id)
missing="" held="" fetching=""
# need NAME URL SUMS: fetches it in the background unless the host has what is at this URL, in place or staged.
need() {
  [ "$(cat "/var/lib/kubepivot/$1" 2>/dev/null)" != "$2" ] || return 0
  if [ -e "/var/lib/kubepivot/stage/$1" ] &&
    [ "$(cut -d ' ' -f 1 "/var/lib/kubepivot/stage/$1.url" 2>/dev/null)" = "$2" ]; then
    held="$held $1"
    return 0
  fi
  missing="$missing $1"
  [ "$(cat "$downloads/$1.url" 2>/dev/null)" != "$2 $boot" ] || return 0
  # What is staged may be the same file by another name: it is not to be written over.
  rm -f "$downloads/$1.url" "$downloads/$1"
  fetch "$@" &
  fetching="$fetching $!"
}
need containerd "$CONTAINERD_URL" "$CONTAINERD_SUMS"
need cni "$CNI_URL" "$CNI_SUMS"
need kubelet "$KUBELET_URL" "$KUBELET_SUMS"
if [ -e /var/lib/kubepivot/runc ] || ! command -v runc >/dev/null; then
  need runc "$RUNC_URL" "$RUNC_SUMS"
fi
if [ "$ROLE" = controller ]; then
  need kubectl "$KUBECTL_URL" "$KUBECTL_SUMS"
  need etcd "$ETCD_URL" "$ETCD_SUMS"
fi
failed=0
for each in $fetching; do
  wait "$each" || failed=1
done
[ "$failed" = 0 ] || exit 1
