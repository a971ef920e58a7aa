"""The Pulumi program: creates a self-hosted Kubernetes cluster from a stack's config."""
