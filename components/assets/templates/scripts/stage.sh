# What containerd and the kubelet of a node run from. Sourced after `lib.sh`, by the step that stages a change of it and by
# the one that swaps it in.

# Staged, it lies here: binaries and archives by their names with their URLs beside them, files below root/.
stage=/var/lib/kubepivot/stage
staged_parts="containerd kubelet"
staged_files="/etc/containerd/config.toml /etc/systemd/system/containerd.service
  /etc/kubernetes/kubelet.yaml /etc/systemd/system/kubelet.service"
# A name of the last change, "none" on a host that has had no other than its first.
last_change=/var/lib/kubepivot/last-change
# There while it is not known whether the node serves with what was swapped in.
unproven=/var/lib/kubepivot/unproven

# What has changed and is not in use yet.
pending=/var/lib/kubepivot/pending

# Its first certificate, which another of the program's takes the place of.
identity=/var/lib/kubelet/pki/kubelet-client-initial.pem

binary() { # target, file
  install -m 0755 "$2" "$1.new"
  put "$1.new" "$1"
}
unpack() { # directory, file, member...: those, or all. What runs from there has the old or the new at any moment
  directory=$1 archive=$2
  shift 2
  mkdir -p -m 0755 "$directory"
  unpacked=$(tar --extract --gzip --no-same-owner --verbose --show-transformed-names --transform 's|[^./]$|&.new|S' \
    --directory "$directory" --file "$archive" "$@") ||
    die "cannot unpack ${archive##*/} into $directory, where all is as it was"
  unpacked=$(printf '%s\n' "$unpacked" | grep '\.new$')
  (
    cd "$directory"
    # shellcheck disable=SC2086
    sync $unpacked
    for file in $unpacked; do mv -f "$file" "${file%.new}"; done
    # shellcheck disable=SC2086
    sync $(printf '%s\n' $unpacked | sed 's|^|./|; s|/[^/]*$||' | sort -u)
  )
}
snapshot_tools() { # file
  # Of the archive's many files these alone: etcd itself runs from its image.
  tar --extract --gzip --no-same-owner --strip-components 1 --wildcards --directory "${1%/*}" --file "$1" \
    '*/etcdctl' '*/etcdutl'
  for tool in etcdctl etcdutl; do binary "/usr/local/bin/$tool" "${1%/*}/$tool"; done
}

# install_parts DIRECTORY PART...: from the files of their names there.
install_parts() {
  from=$1
  shift
  # Until a part is whole it is of no URL; a runc that was cut short here is ours all the same.
  for part; do
    echo "$part" >>"$pending"
    record "/var/lib/kubepivot/$part" ""
  done
  for part; do
    case $part in
      # By name, which are on record: to list the archive takes as long as to unpack it.
      containerd) unpack /usr/local "$from/$part" bin/containerd bin/containerd-shim-runc-v2 bin/ctr ;;
      cni) unpack /opt/cni/bin "$from/$part" ;;
      etcd) snapshot_tools "$from/$part" ;;
      *) binary "/usr/local/bin/$part" "$from/$part" ;;
    esac
  done
  for part; do
    url=$(cut -d ' ' -f 1 "$from/$part.url")
    record "/var/lib/kubepivot/$part" "$url"
  done
}

# All at once: one that is cut short would leave files without what tells whose they are.
discard_stage() {
  rm -rf "$stage.old"
  [ ! -d "$stage" ] || mv "$stage" "$stage.old"
  rm -rf "$stage.old"
}

take() { ln "$@" "$stage.new" 2>/dev/null || cp "$@" "$stage.new"; }

# stage_changes: what is not in place yet, of the files below root/ and of what was downloaded or staged before.
stage_changes() {
  rm -rf "$stage.new"
  mkdir -m 0700 "$stage.new"
  for part in $staged_parts; do
    case " $missing " in
      *" $part "*) take "$downloads/$part" "$downloads/$part.url" ;;
    esac
    case " $held " in
      *" $part "*) take "$stage/$part" "$stage/$part.url" ;;
    esac
  done
  for file in $staged_files; do
    if ! is_placed "$file"; then
      mkdir -p "$stage.new/root${file%/*}"
      cp -p "root$file" "$stage.new/root$file"
      rm "root$file"
    fi
  done
  if [ -z "$(ls -A "$stage.new")" ]; then
    discard_stage
    rm -rf "$stage.new"
    return 0
  fi
  [ ! -e "$last_change" ] || record "$last_change" "$(cat /proc/sys/kernel/random/uuid)"
  # By its name it is taken for what was verified, also after a power cut.
  sync
  discard_stage
  mv "$stage.new" "$stage"
  sync "${stage%/*}"
}

# swap_in: puts what is staged in its place. It stays staged until it is in use.
swap_in() {
  [ -d "$stage" ] || return 0
  parts=""
  for part in $staged_parts; do [ ! -e "$stage/$part" ] || parts="$parts $part"; done
  # shellcheck disable=SC2086
  install_parts "$stage" $parts
  [ ! -d "$stage/root" ] || (cd "$stage" && place)
}

kubelet_is_healthy() {
  curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null http://127.0.0.1:10248/healthz
}

# Pods outlast both.
restart_changed() {
  if has_changed containerd /etc/containerd/config.toml /etc/systemd/system/containerd.service ||
    ! systemctl is-active --quiet containerd; then
    systemctl restart containerd
  fi
  if has_changed kubelet /etc/kubernetes/kubelet.yaml /etc/systemd/system/kubelet.service \
    /etc/kubernetes/pki/kubelet-serving.crt "$identity" || ! systemctl is-active --quiet kubelet; then
    systemctl restart kubelet
  fi
  rm -f "$pending"
}
