# Swaps etcd for what the step brings: another version, other options. The pod stays, its container alone is made anew, so
# that what kube-apiserver asks meanwhile waits for a moment and is not lost. One that does not start is taken back. Converges.
. ./env
. ./lib.sh
. /etc/kubernetes/node.env # how this host's kubelet reaches the API

export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1
manifest=/etc/kubernetes/manifests/etcd.yaml config=/etc/kubernetes/etcd.conf.yml
# While it is not known whether etcd serves with what was placed: the container that ran before, and the files.
unproven=/var/lib/kubepivot/etcd-unproven former=/var/lib/kubepivot/etcd-former

keep_user "root$manifest"
give_uid "root$manifest"
are_placed() { is_placed "$manifest" && is_placed "$config"; }
[ -e "$unproven" ] || ! are_placed || exit 0
# Of an etcd that is down nothing is to be spared, and what mends it would wait for it.
if etcd_is_down "root$manifest"; then
  place
  rm -rf "$unproven" "$former"
  exit 0
fi
if ask_api /readyz >/dev/null 2>&1; then api_is_ready=yes; else api_is_ready=""; fi

ask_status() { status=$(etcd endpoint status --write-out=json); }
field() { printf '%s' "$status" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
image() { sed -n 's/^.* image: //p' "$1"; }

# The image is pulled before etcd is stopped.
if [ -z "$(ctr --namespace k8s.io images list --quiet "name==$ETCD_IMAGE")" ]; then
  said=$(timeout 400 ctr --namespace k8s.io images pull --hosts-dir /etc/containerd/certs.d "$ETCD_IMAGE" 2>&1) ||
    die "cannot pull $ETCD_IMAGE, and etcd is as it was: let the host reach its registry, or set a mirror in the stack's config: $(printf '%s\n' "$said" | tail -n 2)"
fi

# With one more of them down, the members that are left might be too few to serve.
all_answer() { etcd --command-timeout=10s endpoint status --cluster >/dev/null 2>&1; }
wait_for 30 "every member of etcd to answer: bring back the one that does not, and etcd on $NAME is as it was" all_answer

# An older minor starts only on data that were made its own before.
wanted=$(minor_of "$ETCD_VERSION")
data_are_wanted() { ask_status && [ "$(minor_of "$(field storageVersion)")" = "$wanted" ]; }
ask_status
if is_newer "$(minor_of "$(field version)")" "$wanted" && ! data_are_wanted; then
  said=$(etcd downgrade enable "$wanted" 2>&1) || case $said in
    *"in progress"*) ;; # of a run that was cut short
    *) die "etcd $(field version), which is as it was, cannot give its data to $wanted: $said" ;;
  esac
  wait_for 60 "etcd's data to be those of $wanted" data_are_wanted
fi

if [ ! -e "$unproven" ]; then
  rm -rf "$former"
  mkdir -m 0700 "$former"
  cp -p "$manifest" "$former/manifest"
  [ ! -e "$config" ] || cp -p "$config" "$former/config"
  minor_of "$(field version)" >"$former/minor"
  sync "$former"/* "$former"
fi
if [ ! -e "$unproven" ] || ! are_placed; then
  before=$(running etcd)
  record "$unproven" "$before"
else
  before=$(cat "$unproven")
fi
ends_by_itself=yes
if [ "$(image "root$manifest")" != "$(image "$manifest")" ]; then
  # Another image makes the kubelet start the container anew, in the same pod if that has its uid still.
  give_uid "root$manifest" "$before"
elif is_placed "$manifest"; then
  ends_by_itself=""
else
  # What else there is of a pod is taken over by another one only, and without an API for a while.
  sed -i '/^  uid: /d' "root$manifest"
fi
place

signal() { ctr --namespace k8s.io tasks kill --signal "$1" "$before" 2>/dev/null || [ "$(running etcd)" != "$before" ]; }
is_ending() {
  for address in 127.0.0.1 "$ADDRESS"; do
    curl --silent --noproxy '*' --max-time 2 --output /dev/null "http://$address:2379" || [ $? != 7 ] || return 0
  done
  [ "$(running etcd)" != "$before" ]
}
if [ -z "$ends_by_itself" ] && [ "$(running etcd)" = "$before" ]; then signal SIGTERM; fi
PAUSE=0.05 wait_for 60 "the kubelet to end etcd" is_ending
# It waits for watches, which do not end, and serves nobody meanwhile. What it has acknowledged is on the disk.
signal SIGKILL

# It reads, from a quorum. The command for health fails with any alarm: with its quota used up etcd serves all the same,
# and another quota is a part of the cure.
serves() { etcd_is_ready && [ "$(running etcd)" != "$before" ] && etcd get health >/dev/null 2>&1; }
has_version() { serves && ask_status && [ "$(field version)" = "$ETCD_VERSION" ]; }
(wait_for 90 "etcd $ETCD_VERSION to serve" has_version) || {
  tail -n 3 "$(find /var/log/pods/kube-system_etcd-* -name '*.log' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)" >&2 || true
  was=$(cat "$former/minor" 2>/dev/null || echo "$wanted")
  if [ "$was" != "$wanted" ] && [ "$(printf '%s\n' "$was" "$wanted" | sort -V | tail -n 1)" = "$wanted" ] && data_are_wanted; then
    die "etcd $ETCD_VERSION does not serve as it should, and can't be taken back, for the data are its own by now: mend what is said above, then run 'pulumi up' again with the same values"
  fi
  before=$(running etcd)
  rm -rf root
  mkdir -p "root${manifest%/*}"
  cp -p "$former/manifest" "root$manifest"
  [ ! -e "$former/config" ] || cp -p "$former/config" "root$config"
  give_uid "root$manifest" "$before"
  place
  # With the same image the kubelet would let it run.
  [ -z "$before" ] || signal SIGKILL
  wait_for 120 "etcd to serve as before" serves
  rm -rf "$unproven" "$former"
  die "etcd $ETCD_VERSION does not serve, and what ran before has been put back: mend what is said above, or put the former values back in the config; then run 'pulumi up' again"
}

# By its uid the kubelet takes the pod that the API shows for what runs. Deleted, it is made anew.
shown=/api/v1/namespaces/kube-system/pods/etcd-$NAME
is_shown() {
  pod=$(ask_api "$shown" 2>/dev/null) || return 1
  case $(printf '%s' "$pod" | tr -d ' \n') in *"\"name\":\"etcd\",\"image\":\"$ETCD_IMAGE\""*) return 0 ;; esac
  ask_api "$shown" --output /dev/null --request DELETE --header 'Content-Type: application/json' \
    --data '{"gracePeriodSeconds": 0}' 2>/dev/null || true # asked again
  return 1
}
[ -z "$api_is_ready" ] || wait_for 60 "the API to show etcd's new pod" is_shown
rm -rf "$unproven" "$former"
