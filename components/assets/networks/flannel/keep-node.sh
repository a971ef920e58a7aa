pods_range() {
  sed -n 's|^FLANNEL_SUBNET=\(.*\)\.[0-9]*/24$|\1.0/24|p' /run/flannel/subnet.env 2>/dev/null
}
renew_range() { # its lease was of the Node that is gone, and it asks for one only when it starts
  for container in $(ctr --namespace k8s.io containers list --quiet \
    'labels."io.kubernetes.pod.namespace"==kube-system,labels."io.kubernetes.container.name"==flannel'); do
    ctr --namespace k8s.io tasks kill --signal SIGTERM "$container" 2>/dev/null || true # it has ended
  done
}
