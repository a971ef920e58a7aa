"""What root on a worker can try with what lies on it, and that the cluster refuses it."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.engine import docker
from tests.e2e.stacks import Stack, eventually

OWN, OTHER, REMOVED = "worker-1", "controller-1", "worker-9"
ROLE = "node-role.kubernetes.io/control-plane"
REFUSED = ("forbidden", "Forbidden", "is not allowed", "flannel writes")

# Directories of the host whose files may log somebody in.
PLACES = "/etc/kubernetes /var/lib/kubelet"


@dataclass(frozen=True)
class Client:
    """Somebody who logs in with a file of the worker."""

    name: str
    arguments: tuple[str, ...]
    server: str
    context: ssl.SSLContext
    token: str = ""

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", "--kubeconfig=/dev/null", "--request-timeout=20s", *self.arguments, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def patch_status(self, node: str, patch: dict[str, Any]) -> tuple[int, str]:
        """Writes a node's status, as flannel does; kubectl would read it first. The API's answer."""
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        url = f"{self.server}/api/v1/nodes/{node}/status"
        answer = httpx.patch(
            url,
            content=json.dumps(patch),
            headers=headers,
            verify=self.context,
            timeout=20,
            trust_env=False,
        )
        return answer.status_code, answer.text

    def may_not_patch_status(self, node: str, patch: dict[str, Any], why: str = "") -> None:
        status, answer = self.patch_status(node, patch)
        assert status in (403, 422) and why in answer, (self.name, node, patch, status, answer)

    def may(self, *arguments: str, stdin: str | None = None) -> None:
        """Does it, and it works."""
        done = self.kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, (self.name, arguments, done.stderr)

    def may_not(self, *arguments: str, stdin: str | None = None) -> None:
        """Tries it, and is refused for who it is."""
        done = self.kubectl(*arguments, stdin=stdin)
        assert done.returncode != 0, (self.name, arguments, done.stdout)
        assert any(word in done.stderr for word in REFUSED), (self.name, arguments, done.stderr)


class Worker:
    """A worker of a lab, and who its root can log in as."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack, self._directory = stack, directory
        self.kubelet = self._kubelet()
        pods = stack.get("pods", "--namespace=kube-system", f"--field-selector=spec.nodeName={OWN}")["items"]
        self.accounts = {
            pod["spec"]["serviceAccountName"]: self._account(pod)
            for pod in pods
            if any("projected" in volume for volume in pod["spec"]["volumes"])
        }
        assert {"flannel", "kube-proxy"} <= self.accounts.keys()

    def run(self, command: str) -> str:
        return docker("exec", f"{self.stack.name}-{OWN}", "sh", "-ec", command)

    @property
    def clients(self) -> list[Client]:
        return [self.kubelet, *self.accounts.values()]

    def _keep(self, name: str, text: str) -> str:
        file = self._directory / name
        file.touch(mode=0o600)
        file.write_text(text)
        return str(file)

    def _client(self, name: str, arguments: tuple[str, ...], pem: str = "", token: str = "") -> Client:
        outputs = json.loads(self.stack.pulumi("stack", "output", "--json"))
        context = ssl.create_default_context(cadata=outputs["ca_certificate"])
        if pem:
            context.load_cert_chain(pem)
        server = outputs["api_endpoint"]
        authority = self._keep("ca.crt", outputs["ca_certificate"])
        known = (f"--server={server}", f"--certificate-authority={authority}")
        return Client(name, (*arguments, *known), server, context, token)

    def _kubelet(self) -> Client:
        pem = self._keep("kubelet.pem", self.run("cat /var/lib/kubelet/pki/kubelet-client-current.pem"))
        return self._client("kubelet", (f"--client-certificate={pem}", f"--client-key={pem}"), pem=pem)

    def _account(self, pod: dict[str, Any]) -> Client:
        """Whoever the pod is to the API."""
        name = pod["spec"]["serviceAccountName"]
        volumes = f"/var/lib/kubelet/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~projected"
        token = self.run(f"cat {volumes}/*/token")
        # A token in the arguments would be one in a list of processes.
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"user": name}}],
            "current-context": name,
        }
        kubeconfig = self._keep(f"{name}.json", json.dumps(config))
        return self._client(name, (f"--kubeconfig={kubeconfig}",), token=token)


@contextmanager
def taken(stack: Stack) -> Iterator[Worker]:
    """The stack's first worker, taken over."""
    with TemporaryDirectory() as directory:
        yield Worker(stack, Path(directory))


def check(worker: Worker) -> None:
    """Tries everything, with every credential that the worker has."""
    no_other_credential(worker)
    labels_and_taints(worker)
    others_things(worker)
    flannel_writes_its_own_annotations(worker)
    certificates_in_other_names(worker)
    static_pods_are_its_own_affair(worker)
    a_removed_host_stays_removed(worker.stack)
    no_control_plane(worker)


def no_other_credential(worker: Worker) -> None:
    """Of keys there are the kubelet's own, of tokens those of pods that run there."""
    keys = worker.run(f"grep -rlsE -e 'PRIVATE KEY|key-data' {PLACES} --exclude-dir=pods").split()
    own = ("/etc/kubernetes/pki/kubelet-serving.key", "/var/lib/kubelet/pki/kubelet-client-")
    assert keys and all(key.startswith(own) for key in keys), keys
    assert worker.run(f"grep -rlsE -e 'token: ' {PLACES} --exclude-dir=pods || true") == ""
    pods = worker.stack.get("pods", "--all-namespaces", f"--field-selector=spec.nodeName={OWN}")["items"]
    directories = worker.run("cd /var/lib/kubelet/pods && find . -name token | cut -d / -f 2").split()
    assert directories and set(directories) <= {pod["metadata"]["uid"] for pod in pods}


def labels_and_taints(worker: Worker) -> None:
    """What places pods is not a node's own to say, and nothing about another node is."""
    kubelet = worker.kubelet
    kubelet.may("label", "node", OWN, "node.kubernetes.io/controller=true", "--overwrite")
    kubelet.may_not("label", "node", OWN, f"{ROLE}=")
    kubelet.may_not("taint", "node", OWN, "stolen=true:NoSchedule")
    kubelet.may_not("delete", "node", OTHER)
    for client in worker.clients:
        # By way of the status, too: whoever may write that, writes labels.
        for node in (OWN, OTHER):
            client.may_not_patch_status(node, {"metadata": {"labels": {ROLE: ""}}})
        client.may_not_patch_status(OTHER, _annotated("stolen"))
        client.may_not("label", "node", OTHER, "stolen=true")
        client.may_not("taint", "node", OTHER, f"{ROLE}:NoSchedule-")
    for account in worker.accounts.values():
        account.may_not("label", "node", OWN, "stolen=true")


def _annotated(key: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {key: "true"}}}


def flannel_writes_its_own_annotations(worker: Worker) -> None:
    flannel = worker.accounts["flannel"]
    written = "flannel.alpha.coreos.com/tried"
    other, nothing_else = "flannel writes to the node that it runs on", "flannel writes its own annotations"
    status, answer = flannel.patch_status(OWN, _annotated(written))
    assert status == 200, answer
    flannel.may_not_patch_status(OTHER, _annotated(written), other)
    flannel.may_not_patch_status(OWN, _annotated("stolen"), nothing_else)
    flannel.may_not_patch_status(OWN, {"metadata": {"labels": {ROLE: ""}}}, nothing_else)
    pressure = {"status": {"conditions": [{"type": "MemoryPressure", "status": "True"}]}}
    flannel.may_not_patch_status(OWN, pressure, nothing_else)
    worker.stack.kubectl("annotate", "node", OWN, f"{written}-")


def others_things(worker: Worker) -> None:
    """Secrets, pods, tokens and kubelets of others."""
    stack, system = worker.stack, "--namespace=kube-system"
    pods = stack.get("pods", system, f"--field-selector=spec.nodeName={OTHER}")["items"]
    secrets = [each["metadata"]["name"] for each in stack.get("secrets", system)["items"]]
    assert pods and any(name.startswith("kube-apiserver-") for name in secrets), secrets
    placed = json.dumps(_pod("placed", nodeName=OTHER))
    for client in worker.clients:
        client.may_not("get", "secrets", "--all-namespaces")
        for name in secrets:
            client.may_not("get", "secret", name, system)
        client.may_not("create", "--validate=false", "--filename=-", stdin=placed)
        client.may_not("get", "--raw", f"/api/v1/nodes/{OTHER}/proxy/pods")
        client.may_not("create", "token", "generic-garbage-collector", system)
        client.may_not("create", "clusterrolebinding", "stolen", "--clusterrole=cluster-admin", "--group=x")
        for pod in pods:
            client.may_not("delete", "pod", pod["metadata"]["name"], system)
    kubelet = worker.kubelet
    kubelet.may_not("create", "--validate=false", "--filename=-", stdin=json.dumps(_pod("own", nodeName=OWN)))
    (flannel,) = [pod for pod in pods if pod["metadata"]["name"].startswith("flannel")]
    bound = f"--bound-object-name={flannel['metadata']['name']}", "--bound-object-kind=Pod"
    uid = f"--bound-object-uid={flannel['metadata']['uid']}"
    kubelet.may_not("create", "token", "flannel", system, *bound, uid)
    kubelet.may_not("get", "lease", OTHER, "--namespace=kube-node-lease")
    address = worker.stack.get("node", OTHER)["status"]["addresses"][0]["address"]
    pem = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    status = worker.run(
        f"curl --silent --output /dev/null --write-out '%{{http_code}}' --cert {pem} "
        f"--cacert /etc/kubernetes/pki/ca.crt https://{address}:10250/pods"
    )
    assert status == "403"


def _pod(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "x", "image": "docker.io/library/busybox:1.35"}
    spec |= {"containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def certificates_in_other_names(worker: Worker) -> None:
    """A request in another's name is refused, by whoever; one in the kubelet's own is signed."""
    for name, subject, group in (
        ("stolen", f"system:node:{OTHER}", "system:nodes"),
        ("admin", "kubernetes-admin", "system:masters"),
    ):
        for client in worker.clients:
            client.may_not("create", "--filename=-", stdin=json.dumps(_request(name, subject, group)))
    own = _request("own", f"system:node:{OWN}", "system:nodes")
    worker.kubelet.may("create", "--filename=-", stdin=json.dumps(own))
    eventually("the kubelet's own request to be signed", 60, lambda: _signed(worker.stack, "own"))
    worker.stack.kubectl("delete", "csr", "own")


def _request(name: str, subject: str, group: str) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    named = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, group),
        x509.NameAttribute(NameOID.COMMON_NAME, subject),
    ]
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name(named)).sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM)
    signer = "kube-apiserver-client" if name == "admin" else "kube-apiserver-client-kubelet"
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": f"kubernetes.io/{signer}",
            "usages": ["digital signature", "client auth"],
        },
    }


def _signed(stack: Stack, name: str) -> bool:
    return "certificate" in stack.get("csr", name).get("status", {})


def static_pods_are_its_own_affair(worker: Worker) -> None:
    """They run, and neither a Service, a disruption budget nor a step of the program gets to see them."""
    dns = worker.stack.get("service/kube-dns", "--namespace=kube-system")["spec"]["selector"]
    pods = {"bootstrap-stolen": ("kube-system", dns), "stolen": ("default", {"app": "stolen"})}
    for name, (namespace, labels) in pods.items():
        pod = _pod(name)
        pod["metadata"] |= {"namespace": namespace, "labels": labels}
        file = f"/etc/kubernetes/manifests/{name}.json"
        worker.run(f"cat >{file} <<'POD'\n{json.dumps(pod)}\nPOD")
        try:
            eventually(f"the kubelet to be refused {name}", 60, partial(_refused, worker, name), every=1)
        finally:
            worker.run(f"rm {file}")
        found = worker.stack.get("pods", f"--namespace={namespace}", f"--field-selector=spec.nodeName={OWN}")
        assert not [each for each in found["items"] if each["metadata"]["name"].startswith(name)]


def _refused(worker: Worker, name: str) -> bool:
    """Whether the kubelet has tried to tell the API of its static pod, and was refused."""
    journal = worker.run("journalctl --unit=kubelet --output=cat --since=-2min")
    said = (f"{name}-{OWN}", "Failed creating a mirror pod", "a worker's kubelet makes no pods")
    return any(all(part in line for part in said) for line in journal.splitlines())


def a_removed_host_stays_removed(stack: Stack) -> None:
    """With a certificate that somebody kept of a host, there is no Node and no new certificate."""
    node = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": REMOVED}})
    create = "create", "--validate=false", "--filename=-", *_kubelet_of(REMOVED)
    assert "only for a host of the cluster's config" in stack.kubectl(*create, stdin=node, fails=True)
    renew = "create", "certificatesigningrequests.certificates.k8s.io", "--subresource=selfnodeclient"
    for host, may in ((OWN, "yes"), (REMOVED, "no")):
        assert stack.run_kubectl("auth", "can-i", *renew, *_kubelet_of(host)).stdout.strip() == may, host


def _kubelet_of(host: str) -> tuple[str, str]:
    """Options by which kubectl speaks for a kubelet."""
    return f"--as=system:node:{host}", "--as-group=system:nodes"


def no_control_plane(worker: Worker) -> None:
    """Whatever labels the worker has given itself, pods of the control plane are on controllers only."""
    for kind, name in (("daemonset", "kube-apiserver"), ("daemonset", "pod-checkpointer")):
        found = worker.stack.get(f"{kind}/{name}", "--namespace=kube-system")
        assert found["status"]["desiredNumberScheduled"] == 1, name
    components = "kube-apiserver,kube-controller-manager,kube-scheduler,pod-checkpointer"
    selector = f"--selector=app.kubernetes.io/name in ({components})"
    pods = worker.stack.get("pods", "--namespace=kube-system", selector)["items"]
    assert pods and {pod["spec"].get("nodeName") for pod in pods} == {OTHER}
