# Brings the control plane back, once for each generation: from the data that etcd has or from a snapshot, by way
# of the temporary control plane. What happens meanwhile is told on standard error.
. ./env
. ./lib.sh

ask_api_directly
export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1
MANIFESTS=/etc/kubernetes/manifests
DATA=/var/lib/etcd
recovered=/var/lib/kubepivot/recovered work=/var/lib/kubepivot/recovery-$GENERATION
NOT_TEMPORARY="labels.\"io.kubernetes.pod.name\"!=bootstrap-apiserver-$NAME"
# A kubelet renews its lease every 10 s; one that has lost its connection takes up to 30 s more.
SILENT_SECONDS=60

last=$(cat "$recovered" 2>/dev/null || echo 0)
case $last in
  # To recover once more could undo what a snapshot's cluster has done since.
  "" | *[!0-9]*) die "$recovered on $NAME is damaged: write the generation of the last recovery into it, 0 if there was none" ;;
esac
[ "$last" -lt "$GENERATION" ] || exit 0
mkdir -p "$work"

tell() { echo "$*" >&2; }
quietly() { "$@" >/dev/null 2>&1; }

runs() { # NAME [FILTER]: whether such a container runs
  found=$(running "$@") || die "containerd does not answer"
  [ -n "$found" ]
}

# -- restore from a snapshot -------------------------------------------------------------------------------------

restored() { [ "$(cat "$work/restored" 2>/dev/null)" = "$SNAPSHOT" ]; }

make_data() { # the data directory of the snapshot, before anything is stopped
  asked="kubepivot:recovery.snapshot = $SNAPSHOT"
  [ -f "$SNAPSHOT" ] || die "$asked: there is no such file on $NAME"
  if [ -e "$SNAPSHOT.sha256" ] && [ "$(cut -c 1-64 "$SNAPSHOT.sha256")" != "$(sha256sum "$SNAPSHOT" | cut -c 1-64)" ]; then
    die "$asked: it is damaged, its digest is not the one in $SNAPSHOT.sha256; use another snapshot"
  fi
  found=$(etcdutl snapshot status "$SNAPSHOT" 2>&1) || die "$asked: it is no snapshot, or damaged; use another: $found"
  tell "restoring $SNAPSHOT (hash, revision, keys, size: $found)"
  rm -rf "$work/etcd"
  # Clients have seen newer revisions than the snapshot's: with far higher ones, and all others compacted, they look
  # at everything anew.
  found=$(etcdutl snapshot restore "$SNAPSHOT" --data-dir="$work/etcd" --name="$NAME" \
    --initial-cluster="$NAME=$PEER_URL" --initial-cluster-token="$CLUSTER" --initial-advertise-peer-urls="$PEER_URL" \
    --bump-revision="$((GENERATION * 1000000000))" --mark-compacted 2>&1) || die "$asked: it cannot be restored: $found"
  # etcd's user is the one who reads its keys.
  chown -R --reference=/etc/kubernetes/pki/etcd/server.key "$work/etcd"
}
all_stopped() {
  for name in etcd $CHECKPOINTED; do ! runs "$name" || return 1; done
}
stand_down() { # nothing of the control plane runs on this host, and nothing starts it
  systemctl stop kubelet
  [ ! -e "$MANIFESTS/etcd.yaml" ] || mv "$MANIFESTS/etcd.yaml" "$MANIFESTS/.etcd.yaml.recovery"
  rm -f "$MANIFESTS"/*-checkpoint.json
  for name in etcd $CHECKPOINTED; do
    found=$(containers "$name")
    for container in $found; do
      ctr --namespace k8s.io tasks kill --signal SIGKILL --all "$container" 2>/dev/null || true # it has ended
    done
  done
  wait_for 60 "etcd and the control plane on $NAME to end" all_stopped
}
swap_data() { # what was there is kept
  aside=$DATA/before-recovery-$GENERATION
  install -d -m 0700 "$DATA"
  chown --reference=/etc/kubernetes/pki/etcd/server.key "$DATA"
  rm -rf "$DATA/restored"
  mv "$work/etcd/member" "$DATA/restored"
  # With something aside already, a run that was cut short has restored what is there.
  if [ -e "$aside" ]; then rm -rf "$DATA/member"; elif [ -e "$DATA/member" ]; then mv "$DATA/member" "$aside"; fi
  mv "$DATA/restored" "$DATA/member"
  sync
}

if [ -n "$SNAPSHOT" ] && ! restored; then
  make_data
  stand_down
  swap_data
  # Restored once more, it would lose what the cluster has done since.
  record "$work/restored" "$SNAPSHOT"
elif [ ! -e "$DATA/member" ] && [ -e "$DATA/before-recovery-$GENERATION" ]; then
  # A run that was cut short wanted a snapshot, and this one does not.
  mv "$DATA/before-recovery-$GENERATION" "$DATA/member"
fi
[ ! -e "$MANIFESTS/.etcd.yaml.recovery" ] || put "$MANIFESTS/.etcd.yaml.recovery" "$MANIFESTS/etcd.yaml"
systemctl start kubelet

# -- etcd --------------------------------------------------------------------------------------------------------

# Under this alarm an etcd is not healthy, and nothing can be written. A snapshot that was made under it has it, too.
full() { alarms=$(etcd alarm list 2>/dev/null) && case $alarms in *NOSPACE*) return 0 ;; *) return 1 ;; esac; }
serves() { quietly etcd endpoint health || full; }
wait_for 120 "etcd on $NAME; if its data, or most of its members, are lost, set kubepivot:recovery.snapshot" serves
! full || die "etcd's quota is used up, and a recovery has to write: make space as docs/operations.md says under 'etcd's quota is used up', then run again"
finish() {
  record "$recovered" "$GENERATION"
  rm -rf /var/lib/kubepivot/recovery-*
  # The data before the last two restores are kept.
  for old in $(ls "$DATA" | grep '^before-recovery-' | sort -t - -k 3,3nr | tail -n +3); do rm -rf "${DATA:?}/$old"; done
}
system=$(etcd get /registry/namespaces/kube-system --keys-only)
if [ -z "$system" ]; then
  if [ -e /var/lib/kubepivot/pivoted ] || [ -e /etc/kubernetes/checkpoints ]; then
    die "etcd on $NAME is empty, but there was a cluster: set kubepivot:recovery.snapshot"
  fi
  finish # a new cluster: there is nothing to recover
  exit 0
fi
# A webhook that does not answer, a quota or a policy may forbid pods. Then nothing that runs may go: not the old pods,
# since there would be no new ones, and where the API answers already, not the control plane that it has.
pods_may_be_made() { # by a dry run, in which a webhook may take 30 s
  kube --request-timeout=40s create --dry-run=server --validate=false --filename=pods >/dev/null 2>forbidden
}
prove_pods() { # SECONDS
  (wait_for "$1" "leave to make pods" pods_may_be_made) 2>/dev/null || [ ! -s forbidden ] ||
    die "the control plane's pods cannot be made, so none was deleted. Remove what forbids them, such as a webhook, a quota or a policy, then run 'pulumi up' again: $(sed 's/^Error from server[^:]*: //; s/^error when creating "[^"]*": //' forbidden | sort -u | head -n 4 | cut -c 1-400)"
}
# What the temporary control plane would make is no obstacle yet.
if quietly kube get --raw=/readyz && ! pods_may_be_made &&
  ! grep -qiE 'service ?account|PriorityClass|status unknown for quota' forbidden; then
  prove_pods 0
fi

# Addresses of apiservers that are no more would stay in the service `kubernetes`.
etcd del --prefix /registry/masterleases/ >/dev/null

# -- the temporary control plane ---------------------------------------------------------------------------------

# A run that was cut short after its hand-over has made the control plane that is there: of this one that is the old one.
[ ! -e /var/lib/kubepivot/pivoted ] || rm -f "$work/old-pods"
rm -f /var/lib/kubepivot/pivoted
tell "starting the temporary control plane on $NAME"
(cd bootstrap && sh -eu ./run)
# Beside a checkpoint and real ones, as after a power cut, it need not be the one that answers at localhost. Each of them
# answers at an address of its own, and where no filter is set, anyone may.
temporary_answers() {
  for number in 0 1 2 3 4 5 6 7; do
    ! answers_as kube-bootstrap-apiserver "${EACH%0}$number" || return 0
  done
  return 1
}
wait_for 120 "the temporary kube-apiserver to answer" temporary_answers
prove_pods 30 # it has just begun

leases() { # NAMESPACE: name, duration in seconds, and when it was last renewed
  kube get leases --namespace="$1" \
    --output=jsonpath='{range .items[*]}{.metadata.name} {.spec.leaseDurationSeconds} {.spec.renewTime}{"\n"}{end}'
}
# A leader that was killed has given nothing back, and however old its lease is, the next one waits for 15 s from when
# it first sees it. One controller has one clock, and only there the age tells that nobody holds a lease.
free_leases() {
  if [ "$CONTROLLERS" != "$NAME" ] || ! leases kube-system >leaders; then return 0; fi
  while read -r leader seconds renewed; do
    case $leader in kube-controller-manager | kube-scheduler) ;; *) continue ;; esac
    [ $(($(date +%s) - $(date -d "$renewed" +%s))) -ge "$seconds" ] || continue
    # An old instance that is about to go would take it along.
    runs "$leader" "labels.\"io.kubernetes.pod.name\"!=bootstrap-${leader#kube-}-$NAME" ||
      etcd del "/registry/leases/kube-system/$leader" >/dev/null
  done <leaders
}

# -- what is stale goes, what is missing comes -------------------------------------------------------------------

# Those that listened before have the connections, whether they answer or not, a checkpoint in the name of the real one.
# The kubelet would start them again.
systemctl stop kubelet
rm -f "$MANIFESTS"/*-checkpoint.json
end_old() { # SIGNAL
  found=$(containers kube-apiserver "$NOT_TEMPORARY") || die "containerd does not answer"
  for container in $found; do
    ctr --namespace k8s.io tasks kill --signal "$1" "$container" 2>/dev/null || true # it has ended
  done
}
old_ended() { ! runs kube-apiserver "$NOT_TEMPORARY"; }
end_old SIGTERM
if ! (wait_for 15 "the old kube-apiserver to end" old_ended); then
  end_old SIGKILL
  wait_for 15 "the old kube-apiserver to be killed" old_ended
fi

look_first() { leases kube-node-lease >leases-first; }
wait_for 60 "the API to list the nodes' leases" look_first

# list: the control plane's pods but the static ones, with UID, name, component, node, and whether they are Ready.
list() {
  kube get pods --namespace=kube-system --selector="app.kubernetes.io/name in ($(echo $CHECKPOINTED | tr ' ' ,))" \
    --output=jsonpath='{range .items[*]}{.metadata.uid}|{.metadata.name}|{.metadata.labels.app\.kubernetes\.io/name}|{.spec.nodeName}|{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
}
remember() { # none of these counts as running, whatever the API says of it
  list >"$work/old-pods.new" && put "$work/old-pods.new" "$work/old-pods"
}
[ -e "$work/old-pods" ] || wait_for 60 "the API to list the control plane's pods" remember

force_delete() { # pods, which are gone from the API at once, whatever became of their containers
  kube delete pods "$@" --force --grace-period=0 --wait=false >/dev/null 2>errors || { cat errors >&2; return 1; }
}
delete_old() { # those on other controllers run on, unless any will do
  old=$(awk -F '|' -v node="$NAME" '$4 == node || $4 == "" || $3 ~ /^kube-(controller-manager|scheduler)$/ { print $2 }' "$work/old-pods")
  # shellcheck disable=SC2086
  [ -z "$old" ] || force_delete --namespace=kube-system --ignore-not-found $old
}
wait_for 60 "the control plane's old pods to be deleted" delete_old
# It registers its node only when it starts, and the longer the API was gone the more rarely it asks for pods, up to a
# minute.
systemctl start kubelet

applied() { # every object, and none that is about to go
  kube apply --server-side --force-conflicts --field-manager=kubepivot --validate=false --filename=manifests >/dev/null &&
    ends=$(kube get --filename=manifests --output=jsonpath='{.items[*].metadata.deletionTimestamp}') && [ -z "$ends" ]
}
keep_user manifests/*
tell "applying the cluster's objects"
wait_for 120 "the cluster's objects to be applied" applied
annotated() { # as Pulumi's state has them
  while read -r workload intent; do
    kube annotate --overwrite --namespace=kube-system "$workload" "kubepivot.dev/intent=$intent" >/dev/null || return 1
  done <token
}
wait_for 60 "the workloads to be annotated" annotated

look() { # silent: nodes of the config that have not renewed their lease since then
  leases kube-node-lease >leases-now && kube get nodes --output=jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}' >nodes-now || return 1
  silent=""
  for node in $NODES; do
    grep -qxF "$node" nodes-now && renewed=$(grep "^$node " leases-now) && ! grep -qxF "$renewed" leases-first ||
      silent="$silent $node"
  done
}
heard() { # of every node, or of nothing more for long enough, in which the API has answered without a break
  free_leases
  if ! look; then
    since=$(date +%s)
    return 1
  fi
  [ -z "$silent" ] || [ $(($(date +%s) - since)) -ge "$SILENT_SECONDS" ]
}
since=$(date +%s)
wait_for 300 "the API to tell which nodes live" heard
case " $silent " in *" $NAME "*) die "the kubelet of $NAME does not work: look at 'journalctl -u kubelet' there" ;; esac

remove() { # a node that is no more, and its pods
  force_delete --all-namespaces --field-selector="spec.nodeName=$1" &&
    kube delete node "$1" --ignore-not-found --wait=false >/dev/null
}
for node in $(cat nodes-now); do
  case " $NODES " in
    *" $node "*)
      case " $silent " in *" $node "*) ;; *) continue ;; esac
      tell "node $node has not been heard of for $SILENT_SECONDS s: it is removed, with its pods; when it is back, it registers by itself"
      ;;
    *) tell "node $node is not in kubepivot:hosts: it is removed, with its pods" ;;
  esac
  wait_for 60 "node $node to be removed" remove "$node"
done
for node in $silent; do
  grep -qxF "$node" nodes-now || tell "node $node is unknown to the API: it registers when it has heard so, see 'journalctl -u kubepivot-node' there"
done

# -- the real control plane --------------------------------------------------------------------------------------

# A Ready pod of each component that was not there before; DaemonSets have theirs on this host. After a reboot the API
# says Ready of a pod whose container does not run.
renewed() {
  free_leases
  list >pods-now || return 1
  for component in $CHECKPOINTED; do
    new=$(awk -F '|' -v component="$component" -v node="$NAME" '
      FILENAME == ARGV[1] { old[$1]; next }
      !($1 in old) && $3 == component && $5 == "True" && ($4 == node || component ~ /^kube-(controller-manager|scheduler)$/) { print $1; exit }
    ' "$work/old-pods" pods-now)
    [ -n "$new" ] || return 1
    ! grep -q "^$new|.*|$NAME|" pods-now || runs "$component" "labels.\"io.kubernetes.pod.uid\"==$new" || return 1
  done
}
# A node that has registered anew lacks the role that Pulumi gave it, and with it the control plane.
label_roles() {
  # shellcheck disable=SC2086
  found=$(kube get nodes $CONTROLLERS --ignore-not-found --output=name) &&
    kube label $found node-role.kubernetes.io/control-plane= --overwrite --field-manager=kubepivot >/dev/null
}
wait_for 60 "the controllers to get their role" label_roles
tell "waiting for the real control plane"
(wait_for 240 "new pods of the control plane to be Ready" renewed) || { kube get pods --namespace=kube-system --output=wide >&2; exit 1; }

# The rest of the pods come when the kubelets of their nodes ask again: the longer the API was gone the more rarely they
# do, up to a minute, and the control plane needs none of them. Nor is the network between the nodes looked at.
echo "NETWORK=''" >>handover/env
tell "handing over to the real control plane"
(cd handover && sh -eu ./run)
late=$(kube get pods --namespace=kube-system \
  --output=jsonpath='{range .items[*]}{.metadata.name} on {.spec.nodeName}|{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' |
  sed -n '/|True$/!s/|.*//p' | paste -sd ,)
[ -z "$late" ] || tell "not Ready yet, and coming by themselves: $late"
finish
