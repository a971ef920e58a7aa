"""The Pulumi program's parts: a self-hosted Kubernetes cluster from a stack's config."""
