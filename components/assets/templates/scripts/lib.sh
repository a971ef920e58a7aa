# What the scripts on a host share. Sourced, so it has no shebang.
nl="
"

die() {
  echo "error: $*" >&2
  exit 1
}

# put NEW FILE: gives NEW the name FILE. Whenever the power fails, FILE has the new content or what it had before;
# afterwards the new.
put() {
  sync "$1"
  mv -f "$1" "$2"
  sync "${2%/*}"
}

# record FILE TEXT: as above, with the text.
record() {
  printf '%s\n' "$2" >"$1.new"
  put "$1.new" "$1"
}

minor_of() { printf '%s\n' "$1" | cut -d . -f 1-2; }
is_newer() { # VERSION THAN
  [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | tail -n 1)" = "$1" ]
}

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds.
wait_for() {
  deadline=$(($(date +%s) + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$(date +%s)" -lt "$deadline" ] || die "timed out waiting for $what"
    sleep "${PAUSE:-0.3}"
  done
}

# is_placed FILE: whether it is what root/ has in its place.
is_placed() {
  [ -f "$1" ] && cmp -s "root$1" "$1" || return 1
  both=$(stat -c %a:%u "root$1" "$1")
  [ "${both%%$nl*}" = "${both##*$nl}" ]
}

# Puts the files below root/ in their places: each at once, only where it differs, and on the disk when it counts as
# placed: who calls the step done looks at none again. Adds their names to the file $pending, before they change, so that
# a run that is cut short leaves them to the next one; after a power cut everything starts anew without it.
# Files of the static-pod directory appear under a hidden name first, which the kubelet passes over. All are synced with
# one command, as the disk is quicker with many than with one after another.
place() {
  set --
  for file in $(cd root && find . -type f | sed 's/^\.//' | sort); do
    directory=${file%/*}
    ! is_placed "$file" || continue
    [ -d "$directory" ] || mkdir -p "$directory"
    cp -p "root$file" "$directory/.${file##*/}.new"
    set -- "$@" "$file"
  done
  [ $# -gt 0 ] || return 0
  [ -z "${pending:-}" ] || printf '%s\n' "$@" >>"$pending"
  sync $(printf '%s\n' "$@" | sed 's|\(.*\)/\(.*\)|\1/.\2.new|')
  for file; do mv -f "${file%/*}/.${file##*/}.new" "$file"; done
  sync $(printf '%s\n' "$@" | sed 's|/[^/]*$||' | sort -u)
}

# has_changed NAME...: whether one of the names is pending.
has_changed() {
  [ -e "$pending" ] || return 1
  while read -r change; do
    for name; do [ "$name" != "$change" ] || return 0; done
  done <"$pending"
  return 1
}

# A cluster keeps the user that etcd and the control plane had when it was made: a kube-apiserver shares its port only with
# one of the same user. keep_user MANIFEST...: gives that one what has today's, and the secrets that a step brings.
keep_user() {
  [ "$(stat -c %u /etc/kubernetes/pki/etcd/server.key 2>/dev/null)" = "$FORMER_UID" ] || return 0
  sed -Ei "s/((runAsUser|runAsGroup|fsGroup): )$CONTROL_PLANE_UID$/\1$FORMER_UID/" "$@"
  CONTROL_PLANE_UID=$FORMER_UID
  for secrets in root/etc/kubernetes/pki/etcd root/etc/kubernetes/bootstrap-secrets; do
    [ ! -e "$secrets" ] || chown -R "$FORMER_UID:$FORMER_UID" "$secrets"
  done
}

# containers NAME [FILTER]: ids of that container in pods of kube-system.
containers() {
  ctr --namespace k8s.io containers list --quiet \
    "labels.\"io.kubernetes.pod.namespace\"==kube-system,labels.\"io.kubernetes.container.name\"==$1${2:+,$2}"
}
# running NAME [FILTER]: those of them that run. Fails if containerd does not tell.
running() {
  found=$(containers "$@") && tasks=$(ctr --namespace k8s.io tasks list) || return 1
  tasks=$(printf '%s\n' "$tasks" | awk '$3 == "RUNNING" { print $1 }')
  for container in $found; do
    ! printf '%s\n' "$tasks" | grep -qxF "$container" || echo "$container"
  done
}
# The kubelet computes the UID of a static pod that has none from the manifest as it decodes it, so that another manifest or
# another kubelet makes another pod. give_uid MANIFEST [CONTAINER]: the UID that the pod was given before, else that of the
# container's pod.
give_uid() {
  uid=$(sed -n 's/^  uid: //p' /etc/kubernetes/manifests/etcd.yaml 2>/dev/null) || uid="" # there is none yet
  if [ -z "$uid" ] && [ -n "${2:-}" ]; then
    uid=$(ctr --namespace k8s.io containers info "$2" | sed -n 's/.*"io.kubernetes.pod.uid": "\(.*\)".*/\1/p')
  fi
  [ -z "$uid" ] || sed -i -e '/^  uid: /d' -e "s/^metadata:$/&\n  uid: $uid/" "$1"
}

etcd_is_ready() {
  curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null http://127.0.0.1:2381/readyz
}

# etcd_is_down MANIFEST: whether etcd does not answer, so that this manifest may take the place of its own at once. One that
# listens may only be slow. An older minor would not start on data of the newer: there one that is starting is waited for.
etcd_is_down() {
  answer=0
  etcd_is_ready || answer=$?
  [ "$answer" != 0 ] || return 1
  minors=$(sed -n 's/^.* image: .*:v\([0-9]*\.[0-9]*\)\..*/\1/p' /etc/kubernetes/manifests/etcd.yaml "$1")
  older=""
  [ "$minors" = "$(printf '%s\n' "$minors" | sort -V)" ] || older=${minors##*$nl}
  if [ -n "$older" ]; then
    for unit in containerd kubelet; do systemctl is-active --quiet "$unit" || systemctl start "$unit" || true; done # told below
  elif [ "$answer" = 7 ]; then
    return 0 # nobody listens
  fi
  if (wait_for 30 "etcd" etcd_is_ready) 2>/dev/null; then return 1; fi
  [ -n "$older" ] || return 0
  db=/var/lib/etcd/member/snap/db
  [ -e "$db" ] || return 0 # lost
  # One that runs and does not answer has it locked.
  data=$(timeout 20 etcdutl snapshot status "$db" --write-out=json 2>&1) || data=""
  case $data in
    *"\"version\":\"$older."*) ;;
    *) die "etcd is down, and $older, which is to take its place, would not start on its data: mend what keeps it down, and it starts by itself; then run 'pulumi up' again. 'journalctl -u kubelet' and the last file below /var/log/pods/kube-system_etcd-* tell what it is. If the data are beyond repair, move /var/lib/etcd/member away, for a recovery from a snapshot" ;;
  esac
}

etcd() { # etcdctl, at this host's member
  pki=/etc/kubernetes/pki/etcd
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=$pki/ca.crt --cert=$pki/server.crt --key=$pki/server.key "$@"
}

# ask_api PATH ARGUMENT...: as the kubelet, which may change its own Node and pods. /etc/kubernetes/node.env tells the way.
ask_api() {
  path=$1
  shift
  # shellcheck disable=SC2086
  curl --silent --show-error --fail --noproxy '*' --max-time 10 --cacert /etc/kubernetes/pki/ca.crt $THROUGH \
    --cert /var/lib/kubelet/pki/kubelet-client-current.pem "$@" "$API$path"
}

# What asks the API does so directly, also where /etc/environment has a proxy for downloads, and as whom the step brings.
ask_api_directly() { export NO_PROXY='*' no_proxy='*' KUBECONFIG="$PWD/kubeconfig"; }

kube() { kubectl --cache-dir="$PWD/cache" --request-timeout=15s "$@"; }

endpoint_is_ready() {
  curl --silent --output /dev/null --fail --max-time 5 --cacert ca.crt "$API_ENDPOINT/readyz"
}

# answers_as NAME ADDRESS: whether the kube-apiserver that takes new connections at this address of the host is ready and
# has that name. The temporary one and the real one share the port; the name in the certificate tells who answered.
answers_as() {
  answer=$(curl --silent --verbose --fail --max-time 5 --cacert ca.crt --connect-to "::$2:$API_PORT" \
    "https://localhost:$API_PORT/readyz" 2>&1) || return 1
  case $answer in *"CN=$1"*) return 0 ;; *) return 1 ;; esac
}
