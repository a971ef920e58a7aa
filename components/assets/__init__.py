"""Renders all files for hosts and cluster: plain functions from config and certificates to text, no Pulumi.

`controlplane` has the control plane's pods, `manifests` the cluster's objects, `node` the files of a host,
`credentials` what comes from certificates; `render` lays all of it out as bootkube's asset directory.
"""
