"""Stand-in for Pulumi's `digitalocean` plugin 4.76.0: the resource types that the program uses.

It speaks to the API through DigitalOcean's own client. Names, types, defaults, what replaces, waits and error
texts are those of the official plugin (terraform-provider-digitalocean 2.96.0 behind Pulumi's bridge
3.135.0), its faults included where they refuse or fail: what passes here passes there. Not served: imports,
functions, and what `Field.unserved` marks.
"""
