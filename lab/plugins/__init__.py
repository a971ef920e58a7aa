"""Stand-ins for the official Pulumi provider plugins, for machines that cannot download those."""
