# Gives a droplet that has just booted the host key that it is known by from now on, beside its first one.

# It is configured and makes keys until then. Its own errors are 1, and 2 for what it got over.
if command -v cloud-init >/dev/null; then
  cloud-init status --wait >/dev/null || [ $? -eq 2 ] || {
    echo "error: cloud-init has failed on this droplet; its log is /var/log/cloud-init.log" >&2
    exit 1
  }
fi
install -m 600 ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key
install -m 644 ssh_host_ed25519_key.pub /etc/ssh/ssh_host_ed25519_key.pub
sync /etc/ssh/ssh_host_ed25519_key
systemctl try-reload-or-restart ssh.service
