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
missing="" held="" wanted="" room=""
takes() { # MIB DIRECTORY, which may be on a disk of its own, and yet to be made
  directory=$2
  while [ ! -e "${directory:-/}" ]; do directory=${directory%/*}; done
  room="$room$(stat -L -c %d "$directory/") $2 $1 $(df --output=avail -m "$directory/" | tail -n 1)$nl"
}
# need MIB NAME URL SUMS: notes it unless the host has what is at this URL, in place or staged. It takes no more room than
# that as a download, and as much again wherever it is unpacked.
need() {
  [ "$(cat "/var/lib/kubepivot/$2" 2>/dev/null)" != "$3" ] || return 0
  if [ -e "/var/lib/kubepivot/stage/$2" ] &&
    [ "$(cut -d ' ' -f 1 "/var/lib/kubepivot/stage/$2.url" 2>/dev/null)" = "$3" ]; then
    held="$held $2"
    return 0
  fi
  missing="$missing $2"
  case $2 in cni) takes "$1" /opt/cni/bin ;; *) takes "$1" /usr/local/bin ;; esac
  case $2 in containerd | kubelet) takes "$1" /var/lib/kubepivot ;; esac
  # Another version has other images.
  [ "$2" != kubelet ] || takes "$IMAGES_MIB" /var/lib/containerd
  [ "$(cat "$downloads/$2.url" 2>/dev/null)" != "$3 $boot" ] || return 0
  takes "$1" "$downloads"
  wanted="$wanted$2 $3 $4$nl"
}
takes 0 "$downloads"
need 150 containerd "$CONTAINERD_URL" "$CONTAINERD_SUMS"
need 100 cni "$CNI_URL" "$CNI_SUMS"
need 100 kubelet "$KUBELET_URL" "$KUBELET_SUMS"
if [ -e /var/lib/kubepivot/runc ] || ! command -v runc >/dev/null; then
  need 20 runc "$RUNC_URL" "$RUNC_SUMS"
fi
if [ "$ROLE" = controller ]; then
  need 80 kubectl "$KUBECTL_URL" "$KUBECTL_SUMS"
  need 100 etcd "$ETCD_URL" "$ETCD_SUMS"
fi

short=$(printf '%s' "$room" | awk '
  NR == 1 { downloads = $1 }
  # What waits there is linked where it can be.
  $2 == "/var/lib/kubepivot" && $1 == downloads { next }
  !(($1, $2) in of) { places[$1] = places[$1] (places[$1] == "" ? "" : ", ") $2 }
  { of[$1, $2]; needed[$1] += $3; free[$1] = $4 }
  END { for (disk in free) if (free[disk] < needed[disk])
    printf "%s%s: %d MiB are free, and %d are needed", told++ ? "; " : "", places[disk], free[disk], needed[disk] }')
# With all downloads there, what is missing has been measured before.
if [ -n "$wanted" ] && [ -n "$short" ]; then
  die "$NAME has no room for what it is to get: $short; make space there, then run 'pulumi up' again. Nothing was changed"
fi

fetching=""
while read -r name url sums; do
  [ -n "$name" ] || continue
  # What is staged may be the same file by another name: it is not to be written over.
  rm -f "$downloads/$name.url" "$downloads/$name"
  fetch "$name" "$url" "$sums" &
  fetching="$fetching $!"
done <<wanted
$wanted
wanted
failed=0
for each in $fetching; do
  wait "$each" || failed=1
done
[ "$failed" = 0 ] || exit 1
