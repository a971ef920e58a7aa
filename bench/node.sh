# What kubeadm's documentation has its user do on a host. Comes with the URLs in variables in front.
fetch() { curl --fail --silent --show-error --location --output "$1" "$2"; }

# program NAME URL: puts it in place at once, also where it runs.
program() {
  fetch "/usr/local/bin/.$1" "$2"
  chmod 0755 "/usr/local/bin/.$1"
  mv -f "/usr/local/bin/.$1" "/usr/local/bin/$1"
}

archive() { # URL, directory
  fetch "/var/tmp/${1##*/}" "$1"
  mkdir -p "$2"
  tar --extract --gzip --file "/var/tmp/${1##*/}" --directory "$2"
  rm "/var/tmp/${1##*/}"
}

all() { for each; do wait "$each"; done; }

# Container runtime, CNI plugins, kubelet and kubectl. kubeadm starts the kubelet.
install() {
  set --
  archive "$CONTAINERD" /usr/local & set -- "$@" $!
  archive "$CNI_PLUGINS" /opt/cni/bin & set -- "$@" $!
  program kubelet "$KUBELET" & set -- "$@" $!
  [ -z "$KUBECTL" ] || { program kubectl "$KUBECTL" & set -- "$@" $!; }
  all "$@"
  modprobe --all overlay br_netfilter 2>/dev/null || [ -e /proc/sys/net/bridge ]
  sysctl --quiet --load /etc/sysctl.d/90-kubepivot.conf
  systemctl daemon-reload
  systemctl enable --quiet kubelet
  systemctl enable --quiet --now containerd
}

# Another kubelet, and kubectl, for a node that has been drained.
renew() {
  set --
  program kubelet "$KUBELET" & set -- "$@" $!
  [ -z "$KUBECTL" ] || { program kubectl "$KUBECTL" & set -- "$@" $!; }
  all "$@"
  systemctl daemon-reload
  systemctl restart kubelet
}
