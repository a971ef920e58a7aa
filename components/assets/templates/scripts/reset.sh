# Gives a host back as it was: what the record names goes, and what came to be inside that. Converges.
# A step that outlived a killed `pulumi up` would go on making what is removed here. The lock's file stays: who
# waits for it would else hold another lock than who comes next.
exec 9>/run/kubepivot.lock
if ! flock --wait 120 9; then
  echo "a step of another run still works on this host and holds /run/kubepivot.lock" >&2
  exit 1
fi
# What a step that was killed has left, secrets among it: whoever holds the lock is the only one.
rm -rf /run/kubepivot.??????
read_claims
is_recorded() { # LINE
  case $nl$claims$nl in *"$nl$1$nl"*) return 0 ;; esac
  return 1
}
owner=$(cat /etc/kubernetes/kubepivot.cluster 2>/dev/null || true)
if [ -z "$owner" ]; then # nothing was installed here
  rm -rf /var/cache/kubepivot
  rm -f "$made" "$made.new" /etc/kubernetes/kubepivot.cluster.new
  ! is_recorded "tree /etc/kubernetes" || rmdir /etc/kubernetes
  exit 0
fi
if [ "$owner" != "$CLUSTER/$NAME" ]; then
  echo "the host is $owner by now: left alone"
  exit 0
fi
[ -z "$carried" ] || claim_all
save_claims

stop() { # UNIT...
  for unit; do
    [ ! -e "/etc/systemd/system/$unit" ] || systemctl disable --now --quiet "$unit"
  done
}
# First what starts a kubelet, and what runs beside it.
# shellcheck disable=SC2046
stop $(echo "$claims" | sed -n 's|^file /etc/systemd/system/\(kubepivot-.*\)|\1|p')
stop kubelet.service

# Whatever became of containerd, what runs in pods ends, and what the pods' shims hold with them.
of_pods() {
  find /sys/fs/cgroup -path '*/kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u
  for process in /proc/[0-9]*; do
    # An upgrade takes the file away below a shim that runs.
    case $(readlink "$process/exe") in
      /usr/local/bin/containerd-shim-runc-v2 | "/usr/local/bin/containerd-shim-runc-v2 (deleted)") echo "${process#/proc/}" ;;
    esac
  done
}
pods_ended() {
  running=$(of_pods)
  # One that has ended by itself meanwhile is not there any more.
  for process in $running; do kill -9 "$process" 2>/dev/null || true; done
  [ -z "$running" ]
}
wait_for 20 "the processes of pods to end: ps aux shows which hang" pods_ended
stop containerd.service
find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null || true

# By their real paths, as the kernel names them.
kubelet=$(readlink -f /var/lib/kubelet) containerd=$(readlink -f /var/lib/containerd)
# The innermost mount that the kubelet, containerd or a CNI plugin made. Mounts of others stay.
mount_of_ours() {
  awk '{ print $2 }' /proc/mounts | sort -r | while read -r path; do
    # shellcheck disable=SC2254
    case $path in
      "$kubelet"/pods/*/* | "$kubelet"/plugins/*/* | "$containerd"/tmpmounts/* | /run/containerd/*/* | /run/netns/cni-*)
        printf '%s\n' "$path"
        break
        ;;
    esac
  done
}
while path=$(mount_of_ours) && [ -n "$path" ]; do
  umount --lazy "$(printf %b "$path")"
done
rm -f /run/netns/cni-*

# Other software has veths of its own.
for link in $(ip -o link show type veth master cni0 2>/dev/null | awk -F'[ @:]+' '{ print $2 }') $links; do
  # One whose pod has ended goes by itself.
  [ ! -e "/sys/class/net/$link" ] || ip link delete "$link" || [ ! -e "/sys/class/net/$link" ]
done
nft list tables 2>/dev/null | sed 's/^table //' | grep -xE "$tables" | while read -r family table; do
  nft delete table "$family" "$table"
done
# The chains of the kubelet and of the CNI plugins in iptables' tables, and the rules of others' chains that lead
# there. Rules go back as iptables wrote them, whatever they quote; a comment that names such a chain is no jump.
for save in iptables-save ip6tables-save; do
  command -v "$save" >/dev/null || continue
  rules=$("$save")
  printf '%s\n' "$rules" | awk -v ours="^$chains" '
    /^\*/ { table = $0; jumps = chains = ends = "" }
    /^:/ && substr($1, 2) ~ ours { chains = chains "-F " substr($1, 2) "\n"; ends = ends "-X " substr($1, 2) "\n" }
    /^-A/ && $2 !~ ours {
      bare = $0
      gsub(/"([^"\\]|\\.)*"/, "", bare)
      words = split(bare, word, " ")
      for (i = 1; i < words; i++)
        if ((word[i] == "-j" || word[i] == "-g") && word[i + 1] ~ ours) jumps = jumps "-D" substr($0, 3) "\n"
    }
    /^COMMIT/ && chains { printf "%s\n%s%s%sCOMMIT\n", table, jumps, chains, ends }' |
    "${save%save}restore" --noflush
done
# The tables that iptables made for them, if nothing is in them and the host had none.
nft list tables 2>/dev/null | grep -xE 'table (ip|ip6) (filter|nat|mangle)' | while read -r _ family table; do
  ! grep -qsx "table $family $table" /var/lib/kubepivot/tables-before || continue
  # It warns of tables that iptables manages.
  listed=$(nft list table "$family" "$table" 2>/dev/null)
  holds=$(printf '%s\n' "$listed" |
    grep -vE '^(#.*|table .*|[[:space:]]*(chain (INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING) \{|type .* policy accept;|\})?)$' || true)
  [ -n "$holds" ] || nft delete table "$family" "$table"
done
before=/var/lib/kubepivot/sysctl-before.conf
[ ! -e "$before" ] || sysctl --quiet --load "$before" --ignore

read_mounts
has_mounts() { # DIRECTORY
  case $nl$mounts in *"$nl$1/"*) return 0 ;; esac
  return 1
}
# clear DIRECTORY: removes all in it. What others have mounted below it stays, with what it holds.
clear() {
  for each in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ ! -e "$each" ] && [ ! -L "$each" ]; then
      continue
    elif [ -L "$each" ]; then
      rm -f "$each"
    elif is_mounted "$each"; then
      kept="$kept$nl$each"
    elif has_mounts "$each"; then
      clear "$each"
    else
      case ${each##*/} in
        # They say whose the host is and what is left to do: a reset that was cut short has to find them.
        kubepivot.cluster | kubepivot.made) ;;
        lost+found) is_mounted "$1" || rm -rf --one-file-system "$each" ;;
        *) rm -rf --one-file-system "$each" ;;
      esac
    fi
  done
}
# What a mount of others hides, and may be the cluster's.
hidden=""
# remove KIND DIRECTORY: a link is followed, and goes if the directory was the installation's own.
remove() {
  if [ -L "$2" ] && [ ! -d "$2" ]; then
    die "$2 leads to $(readlink "$2"), which is not there, and it has files of the cluster: mount its disk or remove the link, then destroy again"
  fi
  [ -d "$2" ] || return 0
  real=$(readlink -f "$2") kept=""
  clear "$real"
  if [ -n "$kept" ]; then
    case $2 in
      /etc/kubernetes | /var/lib/*) hidden="$hidden$kept" ;;
      *) echo "left as it is, since it was mounted by others:$kept" >&2 ;;
    esac
  elif [ "$1" = tree ] && [ -L "$2" ]; then
    rm -f "$2"
  elif [ "$1" = tree ] && ! is_mounted "$real"; then
    rmdir "$real"
  fi
}
while read -r kind path; do
  case $kind in
    file) rm -f "$path" "$path.new" "${path%/*}/.${path##*/}.new" ;;
    tree | content) [ "$path" = /etc/kubernetes ] || remove "$kind" "$path" ;;
  esac
done <<END
$claims
END
systemctl daemon-reload
rm -rf --one-file-system /var/cache/kubepivot
# Others' files may be in them.
# shellcheck disable=SC2046
rmdir $(echo "$claims" | sed -n 's/^directory //p' | sort -r) 2>/dev/null || true
remove content /etc/kubernetes
[ -z "$hidden" ] || die "what may be keys or data of the cluster is in what others have mounted here; unmount it, then destroy again:$hidden"
# Without the mark no reset would come back for what a power cut undoes.
sync
rm -f /etc/kubernetes/kubepivot.cluster "$made"
! is_recorded "tree /etc/kubernetes" || remove tree /etc/kubernetes
sync
