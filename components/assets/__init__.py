"""Text of everything that lands on a host or in the cluster: plain functions, no Pulumi.

`controlplane` holds the pods of the control plane, `manifests` the objects of the cluster, `node` the files
of a host; `values` is what certificates contribute to them. `render` puts all into bootkube's directory.
"""
