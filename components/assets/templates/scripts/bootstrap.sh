# Starts the temporary control plane and ends when the API answers at its endpoint and knows the controllers. Once the
# real control plane has taken over it starts nothing.
. ./env
. ./lib.sh

ask_api_directly

if [ ! -e /var/lib/kubepivot/pivoted ]; then
  keep_user root/etc/kubernetes/manifests/*
  for directory in root/etc/kubernetes/bootstrap-secrets root/etc/kubernetes/bootstrap-secrets/*; do
    install -d -o "$CONTROL_PLANE_UID" -g "$CONTROL_PLANE_UID" -m 0700 "${directory#root}"
  done
  [ -e /etc/kubernetes/manifests/bootstrap-apiserver.yaml ] && again=yes || again=no
  place
  # Without an API a kubelet never ends a static pod, so that one whose manifest was mended is started by a new kubelet
  # only.
  [ "$again" = no ] || endpoint_is_ready || systemctl restart kubelet
  # The real kube-apiserver waits longest for this image, which the temporary one has not: it comes while that starts. If it
  # cannot be had, the kubelet says so.
  systemd-run --quiet --collect \
    ctr --namespace k8s.io images pull --hosts-dir /etc/containerd/certs.d "$FILTER_IMAGE"
fi

explain() { # the last lines of what the API needs; before there is one they are on disk only
  for pod in etcd bootstrap-apiserver kube-apiserver; do
    # shellcheck disable=SC2012
    log=$(ls -t "/var/log/pods/kube-system_$pod-"*/*/*.log 2>/dev/null | head -n 1)
    [ -n "$log" ] || continue
    echo "--- $log"
    tail -n 8 "$log" | cut -d ' ' -f 4- | cut -c 1-300
  done
  journalctl --unit=kubelet --since=-2min --output=cat | grep -i 'failed to pull image' | tail -n 1 | cut -c 1-600
}
(wait_for 240 "the API at $API_ENDPOINT/readyz; look at 'journalctl -u kubelet' and /var/log/pods on $NAME" endpoint_is_ready) ||
  { explain >&2; exit 1; }

registered() {
  # shellcheck disable=SC2086
  kube get nodes $CONTROLLERS >/dev/null 2>nodes
}
# Their kubelets ask ever more rarely, up to 7 s apart. What follows gives them the role that places the control plane.
(wait_for 60 "the controllers to register; look at 'journalctl -u kubelet' on them" registered) ||
  { cat nodes >&2; exit 1; }
