"""What a machine without a cloud needs to run a cluster: hosts, toolchain, mirror and provider plugins."""
