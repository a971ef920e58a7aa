// Command pulumi-resource-kubernetes serves Pulumi's Kubernetes provider.
package main

import (
	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version"
)

func main() {
	// The package's schema serves `pulumi import` and the making of SDKs, neither of which the lab does.
	none := []byte("{}")
	provider.Serve("kubernetes", version.Version, none, none)
}
