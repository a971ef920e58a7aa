# What the scripts on a host share. Sourced, so it has no shebang.

die() {
  echo "error: $*" >&2
  exit 1
}

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds.
wait_for() {
  deadline=$(($(date +%s) + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$(date +%s)" -lt "$deadline" ] || die "timed out waiting for $what"
    sleep 0.3
  done
}

# Puts the files below root/ in their places: each at once, and only where it differs. Names them in $changed.
# Files of the static-pod directory appear under a hidden name first, which the kubelet passes over.
place() {
  changed=""
  for file in $(cd root && find . -type f | sed 's/^\.//' | sort); do
    directory=${file%/*} name=${file##*/}
    if [ -f "$file" ] && cmp -s "root$file" "$file" &&
      [ "$(stat -c %a:%u "root$file")" = "$(stat -c %a:%u "$file")" ]; then
      continue
    fi
    mkdir -p "$directory"
    cp -p "root$file" "$directory/.$name.new"
    mv -f "$directory/.$name.new" "$file"
    changed="$changed $file"
  done
}

# has_changed PATH...: whether `place` changed one of the files.
has_changed() {
  for path in "$@"; do
    case " $changed " in *" $path "*) return 0 ;; esac
  done
  return 1
}
