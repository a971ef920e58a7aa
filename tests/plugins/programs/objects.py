"""Objects in a cluster that is there, made and ended as the program's own are."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_tls as tls

from components.selfhosted import Manifest

config = pulumi.Config()
# What all objects end with; in the program it is the step that starts the temporary control plane.
bootstrap = tls.PrivateKey("bootstrap", algorithm="ED25519")
provider = kubernetes.Provider(
    "cluster", kubeconfig=config.require_secret("kubeconfig"), cluster_identifier="cluster"
)
opts = pulumi.ResourceOptions(provider=provider, deleted_with=bootstrap)
for name, manifest in config.require_object("manifests").items():
    Manifest(name, manifest, opts, patch=manifest["kind"] == "Node")
