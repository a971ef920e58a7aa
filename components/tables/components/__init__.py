"""What runs as a workload of the cluster: one row per component, with its images, flags, port and files.

Data only. `${name}` is filled in: in flags by `components.assets.controlplane`, in images from the release.
"""

from __future__ import annotations

from components.tables.components.images import PYTHON_IMAGE, kubernetes_image
from components.tables.components.kube_apiserver import KUBE_APISERVER
from components.tables.components.kube_controller_manager import KUBE_CONTROLLER_MANAGER
from components.tables.components.kube_scheduler import KUBE_SCHEDULER
from components.tables.components.row import SECRETS, Component, ComponentName, Flag, Form, Image, Workload

__all__ = [
    "CHECKPOINTED",
    "CONTROL_PLANE",
    "LEADERS",
    "SECRETS",
    "WORKLOADS",
    "Component",
    "ComponentName",
    "Flag",
    "Form",
    "Image",
    "Workload",
]

CONTROL_PLANE: dict[ComponentName, Component] = {
    "kube-apiserver": KUBE_APISERVER,
    "kube-controller-manager": KUBE_CONTROLLER_MANAGER,
    "kube-scheduler": KUBE_SCHEDULER,
}

LEADERS = tuple(
    name for name, row in CONTROL_PLANE.items() if any(f.name == "leader-elect" for f in row.flags)
)
"""Those of which one leads, each with a lease of its name."""

KUBE_PROXY = Workload(name="kube-proxy", images=(kubernetes_image("kube-proxy"),))

COREDNS = Workload(
    name="coredns",
    images=(
        Image(
            key="coredns",
            title="CoreDNS",
            reference="registry.k8s.io/coredns/coredns:v${coredns}",
            example="registry.example.com/coredns:v1.14.2",
        ),
    ),
)

POD_CHECKPOINTER = Workload(name="pod-checkpointer", images=(PYTHON_IMAGE,))

CHECKPOINTED = (*CONTROL_PLANE, POD_CHECKPOINTER.name)
"""Those that pod-checkpointer keeps copies of on controllers."""

WORKLOADS: tuple[Workload, ...] = (*CONTROL_PLANE.values(), KUBE_PROXY, COREDNS, POD_CHECKPOINTER)
"""All but the network's."""
