#!/bin/sh
# Makes a snapshot of etcd, checks it and, where the config says so, copies it to S3-compatible storage. It needs
# this host's etcd and nothing else of the cluster. `backup fetch NAME` brings a copy back that the host lacks.
# Both print the snapshot's path and SHA-256.
set -eu
umask 077
. /etc/kubernetes/backup.env
directory=/var/lib/kubepivot/backups
pki=/etc/kubernetes/pki/etcd

die() {
  echo "error: $*" >&2
  exit 1
}

install -d -m 0700 "$directory"
cd "$directory"
exec 9<.
# All deadlines of a run together are less than an hour, after which whoever started it ends it.
flock --wait 900 9 || die "another run of the backup has not ended for a quarter of an hour: see 'systemctl status kubepivot-backup'"
# What a run that was killed has left.
rm -f .new.*
for sum in *.sha256; do [ -e "${sum%.sha256}" ] || rm -f "$sum"; done
trap 'rm -f .new.*' EXIT
trap 'exit 143' HUP INT TERM

is_snapshot() { grep -Ex "$CLUSTER-[0-9]{8}T[0-9]{6}Z-[0-9]+\.db"; }

# etcd appends the SHA-256 of what it has sent; `status` looks at the pages of the database.
check() { # what to call it
  size=$(stat -c %s .new.db)
  [ "$((size % 512))" = 32 ] || die "$1 is cut short: it has $size bytes"
  sent=$(tail -c 32 .new.db | od -A n -t x1 -v | tr -d ' \n')
  got=$(head -c "$((size - 32))" .new.db | sha256sum | cut -c 1-64)
  [ "$got" = "$sent" ] || die "$1 is damaged: the SHA-256 of its content is $got, but etcd sent $sent"
  status=$(timeout 300 etcdutl snapshot status .new.db --write-out=json 2>&1) || {
    [ $? != 124 ] || die "$1 could not be checked within 300 s"
    die "$1 is damaged: $status"
  }
}

settle() { # name: what has been checked gets its name, and the host keeps it
  sum=$(sha256sum .new.db | cut -c 1-64)
  echo "$sum  $1" >.new.sha256
  sync .new.db .new.sha256
  mv .new.sha256 "$1.sha256"
  mv .new.db "$1"
  sync .
  tell "$1"
}
tell() { printf 'path=%s\nsha256=%s\n' "$directory/$1" "$(cut -c 1-64 "$1.sha256")"; }

# Of the snapshots on standard input, those beyond `keep`; never the one that has just been made. What has a later name
# than that was made while the clock was wrong, and counts as older than all others.
surplus() { others "$1" | tail -n "+$KEEP"; }
others() { # all but that one, in the order in which they stay longest
  is_snapshot | grep -vxF "$1" | sort -r |
    awk -v made="$1" '$0 < made { print; next } { later = later $0 "\n" } END { printf "%s", later }'
}
oversize() { # those of this host that together with that one take more than they may
  left=$((MAX_BYTES - $(stat -c %s "$1")))
  for old in $(ls | others "$1"); do
    left=$((left - $(stat -c %s "$old")))
    [ "$left" -ge 0 ] || echo "$old"
  done
}

# needs BYTES WHAT: that much has to be free beside a reserve. It may be etcd's own disk, and with a full one it ends.
RESERVE=$((1024 * 1048576))
needs() {
  free=$(df --output=avail -B 1 . | tail -n 1 | tr -d ' ')
  [ "$free" -ge "$(($1 + RESERVE))" ] ||
    die "$2, older ones are as they were: $directory has $((free / 1048576)) MiB free, and $((($1 + RESERVE) / 1048576)) MiB are needed, 1024 of them left for etcd; make space there, or lower kubepivot:backup.keep or kubepivot:backup.maxSize"
}

etcd() { # seconds, arguments of etcdctl
  seconds=$1
  shift
  said=$(timeout "$((seconds + 10))" etcdctl --endpoints=https://127.0.0.1:2379 --cacert="$pki/ca.crt" \
    --cert="$pki/server.crt" --key="$pki/server.key" --command-timeout="${seconds}s" "$@" 2>&1) ||
    die "etcd on this host gave no snapshot, older ones are as they were: $(printf '%s\n' "$said" | grep -v '^{')"
}

save() {
  etcd 10 endpoint status --write-out=json # a snapshot takes longer, but an etcd that is down should not
  size=$(printf '%s\n' "$said" | sed -n 's/.*"dbSize":\([0-9]*\).*/\1/p')
  [ -n "$size" ] || die "etcd tells no size of its database: $said"
  needs "$((2 * size))" "no snapshot was made"
  etcd 600 snapshot save .new.db
  check "the snapshot"
  revision=$(printf '%s\n' "$status" | sed -n 's/.*"revision":\([0-9]*\).*/\1/p')
  [ -n "$revision" ] || die "etcdutl tells no revision: $status"
  name=$CLUSTER-$(date -u +%Y%m%dT%H%M%SZ)-$revision.db
  settle "$name"
  for old in $(ls | surplus "$name") $(oversize "$name"); do rm -f "$old" "$old.sha256"; done
}

# -- copies ------------------------------------------------------------------------------------------------

# s3 SECONDS WHAT ARGUMENT...: runs the client; WHAT and its last line are the error.
s3() {
  deadline=$1 what=$2
  shift 2
  timeout "$deadline" "$client" --contimeout=10s --timeout=60s --retries=2 --low-level-retries=3 "$@" 2>.new.said || {
    [ $? != 124 ] || echo "it did not end within $deadline s" >>.new.said
    die "$what: $(tail -n 1 .new.said)"
  }
}

open_storage() {
  client=/usr/local/libexec/kubepivot/rclone
  # A form that the client reads, no protection; by the environment, so that no list of processes shows it.
  RCLONE_CONFIG_COPIES_PASSWORD=$(printf '%s' "$ENCRYPTION_KEY" | "$client" obscure -)
  export RCLONE_CONFIG_COPIES_PASSWORD
}

copy() {
  failed="$directory/$name is safe on this host, but not in $STORAGE (kubepivot:backup.s3); the next run copies what is missing"
  # First, because a copy that is refused tells less of the reason than a list.
  there=$(s3 120 "$failed" lsf --files-only "copies:$HOST")
  s3 1500 "$failed" copy . "copies:$HOST" --ignore-existing --include "/$CLUSTER-*.db"
  old=$({ printf '%s\n' "$there"; ls; } | sort -u | surplus "$name")
  [ -z "$old" ] || printf '%s\n' "$old" | s3 120 "old copies in $STORAGE can't be deleted" delete "copies:$HOST" --files-from -
}

fetch() { # name
  printf '%s\n' "$1" | is_snapshot >/dev/null ||
    die "$1 is no snapshot of the cluster $CLUSTER: their names are $CLUSTER-20260102T030405Z-1234.db"
  if sha256sum --check --status "$1.sha256" 2>/dev/null; then
    tell "$1"
    return
  fi
  [ -n "${STORAGE:-}" ] || die "$directory has no whole $1, and there are no copies: kubepivot:backup.s3 is not set"
  open_storage
  found=$(s3 120 "the copies in $STORAGE can't be listed" lsf --recursive --files-only --format ps --include "/*/$1" copies:)
  [ -n "$found" ] || die "neither $directory nor $STORAGE has $1"
  found=$(printf '%s\n' "$found" | head -n 1)
  needs "${found##*;}" "$1 was not fetched"
  found=${found%;*}
  s3 1500 "$1 can't be had from $STORAGE" copyto "copies:$found" .new.db
  check "the copy $found in $STORAGE"
  settle "$1"
}

case $# in
  0)
    save
    if [ -n "${STORAGE:-}" ]; then
      open_storage
      copy
    fi
    ;;
  2)
    [ "$1" = fetch ] || die "unknown: $1; use no argument, or fetch NAME"
    fetch "$2"
    ;;
  *) die "use no argument, or fetch NAME" ;;
esac
