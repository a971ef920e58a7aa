# Looks at a host before anything is written to it, and tells every problem at once. Writes nothing.
. ./preflight.env
. ./claims

problems=0
problem() {
  problems=$((problems + 1))
  echo "$NAME: $1. $2."
}

[ "$(id -u)" = 0 ] || problem "the step runs as $(id -un), not as root" "Log in as root or allow $(id -un) sudo without a password"
[ -d /run/systemd/system ] || problem "there is no systemd" "Use a Linux that boots with systemd"
case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *)
    arch=amd64
    problem "the architecture is $(uname -m)" "Use x86_64 or aarch64"
    ;;
esac
lacking=""
for command in awk base64 cmp curl df find flock ip mount sed sha256sum stat sysctl tar timeout; do
  if ! command -v "$command" >/dev/null; then
    lacking=yes
    problem "the command $command is missing" "Install it"
  fi
done
# What follows needs them.
[ -z "$lacking" ] || exit 1

# A host that is already this one has a kubelet, open ports and data: its own.
owner=$(cat /etc/kubernetes/kubepivot.cluster 2>/dev/null || true)
if [ -z "$owner" ]; then
  for unit in kubelet containerd docker k3s rke2-server; do
    if systemctl is-active --quiet "$unit" 2>/dev/null; then
      problem "$unit.service is running" "Remove it from the host first: systemctl disable --now $unit"
    fi
  done
  # Wherever something will be put: what is there would be overwritten, or deleted by a destroy.
  for directory in $trees; do
    if [ -L "$directory" ] && [ ! -d "$directory" ]; then
      problem "$directory is a link to nothing" "Make the directory that it leads to, or remove the link"
    elif [ -e "$directory" ] && ! is_empty "$directory"; then
      problem "$directory is not empty" "Another installation left it, and a destroy would delete it: move it away"
    fi
  done
  for file in $files; do
    if [ -e "$file" ] || [ -L "$file" ]; then
      problem "there is $file" "Another installation's, which would be overwritten: remove it or move it away"
    fi
  done
  for unit in kubelet containerd; do
    if systemctl cat "$unit.service" >/dev/null 2>&1; then
      problem "there is a $unit.service" "Remove the package that it is from: systemctl cat $unit"
    fi
  done
  for link in $links; do
    [ ! -e "/sys/class/net/$link" ] || problem "there is a link $link" "Another cluster left it: ip link delete $link"
  done
  for table in $(nft list tables 2>/dev/null | sed 's/^table //' | grep -xE "$tables" | tr ' ' :); do
    table="${table%:*} ${table#*:}"
    problem "there is the nftables table $table" "Another cluster left it: nft delete table $table"
  done
  for save in iptables-save ip6tables-save; do
    if "$save" 2>/dev/null | grep -qE "^:$chains"; then
      problem "$save shows chains of another cluster" "Reboot the host, or remove all that begin with one of $chains"
    fi
  done
  # Pods would be asked instead of what is there, such as a cloud's own services.
  taken=$(ip -o -4 address show | awk -v ranges="$PODS $SERVICES" '
    function number(text, part) { split(text, part, "."); return ((part[1] * 256 + part[2]) * 256 + part[3]) * 256 + part[4] }
    {
      split($4, own, "/")
      for (i = split(ranges, each, " "); i > 0; i--) {
        split(each[i], range, "/")
        size = 2 ^ (32 - (own[2] + 0 < range[2] + 0 ? own[2] : range[2]))
        if (int(number(own[1]) / size) == int(number(range[1]) / size)) print $4 " of " $2 " and " each[i]
      }
    }')
  [ -z "$taken" ] || problem "networks of its links overlap those of pods and services: $(echo $taken)" "Choose other ranges for kubepivot:network.pods and services"
  # tcp6 is not there on a host without IPv6.
  listening=" $(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { sub(/.*:/, "", $2); printf "%s ", $2 }')"
  for port in $PORTS; do
    case $listening in
      *" $(printf '%04X' "$port") "*) problem "port $port is in use" "Stop what listens there: ss -ltnp sport = :$port" ;;
    esac
  done
elif [ "${owner%/*}" != "$CLUSTER" ]; then
  problem "it belongs to the cluster ${owner%/*} (/etc/kubernetes/kubepivot.cluster)" "Destroy that cluster's stack first, or use another host"
elif [ "$owner" != "$CLUSTER/$NAME" ]; then
  problem "it is ${owner#*/} of this cluster already (/etc/kubernetes/kubepivot.cluster)" "Put the old name back; to rename it, remove ${owner#*/} from kubepivot:hosts, run pulumi up, and add the host as $NAME in a second run"
fi

kernel_has() { # name of a filesystem, link type or module, and a file that shows it is there
  [ -e "$2" ] || grep -qw "$1" /proc/filesystems || modprobe --quiet --dry-run "$1" 2>/dev/null || grep -qs "/$1\.ko" "/lib/modules/$(uname -r)/modules.builtin"
}
kernel_has overlay /sys/module/overlay || problem "the kernel has no overlay filesystem" "Use a kernel with CONFIG_OVERLAY_FS"
kernel_has br_netfilter /proc/sys/net/bridge || problem "the kernel has no br_netfilter" "Use a kernel with CONFIG_BRIDGE_NETFILTER"
kernel_has nf_tables /sys/module/nf_tables || nft list tables >/dev/null 2>&1 || problem "the kernel has no nf_tables" "Use a kernel with CONFIG_NF_TABLES"
kernel_has vxlan /sys/module/vxlan || problem "the kernel has no vxlan" "Use a kernel with CONFIG_VXLAN"
# kube-apiservers share a port, and without it a connection would be lost when one of them stops listening.
[ -e /proc/sys/net/ipv4/tcp_migrate_req ] || problem "the kernel $(uname -r) is too old" "Use Linux 5.14 or newer"

# etcd and the API listen at this address and no other.
addresses=$(ip -o -4 address show | awk '{ sub("/.*", "", $4); print $4 }')
printf '%s\n' "$addresses" | grep -qxF "$ADDRESS" ||
  problem "its address $ADDRESS is on none of its links; they have $(printf '%s\n' "$addresses" | grep -v '^127\.' | tr '\n' ' ')" "Set kubepivot:hosts.$NAME.address to an address that the host has itself, not a floating one or one that is translated on the way"
# The kernel looks for a route before kube-proxy's rules turn the packet round.
ip -4 route get "$SERVICE_IP" >/dev/null 2>&1 ||
  problem "it has no route for addresses of services such as $SERVICE_IP" "Give it a default route; where nothing lies outside, one into the hosts' network will do, also after a boot: ip route add default dev LINK"

# On a host that is this one already the hand-over looks whether pods' traffic passes.
if [ -z "$owner" ]; then
  # A table whose last word on what is forwarded is no, and where no rule lets the pods through.
  dropping=$(nft list ruleset 2>/dev/null | awk -v pods="$PODS" '
    $1 == "table" { table = $2 " " $3; drops = ""; allows = 0 }
    $1 == "chain" { chain = $2 }
    /hook forward/ && /policy drop/ { drops = chain }
    index($0, pods) && /accept/ { allows = 1 }
    /^}/ && drops != "" && !allows && table ~ /^(ip|inet) / { print "table " table ", chain " drops; exit }')
  if [ -z "$dropping" ] && { ! command -v nft >/dev/null || grep -qsx filter /proc/net/ip_tables_names; }; then
    for tool in iptables iptables-legacy; do
      rules=$("$tool" -S FORWARD 2>/dev/null) || continue
      case $rules in
        *"$PODS"*ACCEPT*) ;;
        *"-P FORWARD DROP"*) dropping="$tool, chain FORWARD" ;;
      esac
    done
  fi
  if [ -n "$dropping" ]; then
    for unit in docker ufw; do
      ! systemctl is-active --quiet "$unit" 2>/dev/null || dropping="$dropping; $unit.service is active"
    done
    problem "its firewall drops what is forwarded, as pods' traffic is ($dropping)" "Run iptables -P FORWARD ACCEPT and change it where it is set (ufw: DEFAULT_FORWARD_POLICY in /etc/default/ufw), or let $PODS through"
  fi
  if systemctl is-active --quiet firewalld 2>/dev/null &&
    ! firewall-cmd --zone=trusted --query-source="$PODS" >/dev/null 2>&1; then
    problem "firewalld.service is active and does not trust the pods" "Turn it off (systemctl disable --now firewalld), or trust the hosts' network, $PODS and $SERVICES (firewall-cmd --permanent --zone=trusted --add-source=RANGE, then firewall-cmd --reload)"
  fi
fi

memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
[ "$memory" -ge "$MEMORY_MIB" ] || problem "it has $memory MiB of memory" "Give a $ROLE at least $MEMORY_MIB MiB"
# A host that is this one already needs room for what is new alone: `download.sh` looks.
if [ -z "$owner" ]; then
  disk=$(df --output=avail -m /var | tail -n 1 | tr -d ' ')
  [ "$disk" -ge "$DISK_MIB" ] || problem "/var has $disk MiB free" "Free at least $DISK_MIB MiB"
fi
if [ "$ROLE" = controller ] && [ -d /var/lib/etcd ]; then
  disk=$(df --output=size -m /var/lib/etcd | tail -n 1 | tr -d ' ')
  [ "$disk" -ge "$ETCD_MIB" ] || problem "the disk of /var/lib/etcd has $disk MiB" "Use one of at least $ETCD_MIB MiB, or lower kubepivot:etcd.quota"
fi
if [ "$NESTED" = no ] && [ "$(wc -l </proc/swaps)" -gt 1 ]; then
  problem "swap is on" "Turn it off: swapoff --all, and remove it from /etc/fstab"
fi

# The site of the binaries is asked for its clock as well.
ARTIFACTS_PROBE=${ARTIFACTS_PROBE%@ARCH@*}$arch${ARTIFACTS_PROBE#*@ARCH@}
if headers=$(curl --fail --silent --show-error --head --location --connect-timeout 10 --max-time 20 "$ARTIFACTS_PROBE" 2>&1); then
  remote=$(printf '%s\n' "$headers" | tr -d '\r' | sed -n 's/^[Dd]ate: //p' | tail -n 1)
  if [ -n "$remote" ]; then
    skew=$(($(date +%s) - $(date -d "$remote" +%s)))
    [ "${skew#-}" -le 30 ] || problem "its clock is $skew s off that of $ARTIFACTS_PROBE" "Set the clock, and run a time service such as chrony"
  fi
else
  problem "$ARTIFACTS_PROBE does not answer ($headers)" "Let the host reach it, or set $ARTIFACTS_KEY to a mirror that it reaches"
fi

[ "$problems" = 0 ] || exit 1
echo "machine-id=$(cat /etc/machine-id)"
echo "hostname=$(uname -n)"
