#!/bin/sh
# What a droplet has to have after every boot. Can be run again.
set -eu
. /etc/kubepivot-droplet.env

# What comes in by a link is not the host's own: pods' packets do, before they are forwarded or taken in.
nft -f - <<END
table ip kubepivot_droplet
delete table ip kubepivot_droplet
END
if [ -z "$POD_METADATA" ]; then
  nft -f - <<END
table ip kubepivot_droplet {
  chain metadata {
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" ip daddr 169.254.169.254 drop
  }
}
END
fi

# The network turns the reserved IP into another address on its way in. What this host sends to it would go
# out and has no way back.
ip -4 address flush dev lo label lo:kubepivot
[ -z "$RESERVED" ] || ip address add "$RESERVED/32" dev lo label lo:kubepivot
