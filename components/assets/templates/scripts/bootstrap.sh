# Starts the temporary control plane and ends when the API answers at its endpoint. Once the real control plane
# has taken over it does nothing.
. ./env
. ./lib.sh

if [ ! -e /var/lib/kubepivot/pivoted ]; then
  install -d -o "$CONTROL_PLANE_UID" -g "$CONTROL_PLANE_UID" -m 0700 /etc/kubernetes/bootstrap-secrets
  for component in kube-apiserver kube-controller-manager kube-scheduler; do
    install -d -o "$CONTROL_PLANE_UID" -g "$CONTROL_PLANE_UID" -m 0700 "/etc/kubernetes/bootstrap-secrets/$component"
  done
  place
fi

ready() {
  curl --silent --output /dev/null --fail --max-time 5 --cacert ca.crt "$API_ENDPOINT/readyz"
}
wait_for 240 "the API at $API_ENDPOINT/readyz; look at 'journalctl -u kubelet' and /var/log/pods on $NAME" ready
