# Takes from a droplet the host key that its metadata tell, and says who may log in and what pods may read.
. ./droplet.env

rm -f /etc/ssh/ssh_host_ecdsa_key* /etc/ssh/ssh_host_rsa_key* /etc/ssh/ssh_host_dsa_key*
# Of an image that is booted anew cloud-init would make keys again.
if [ -d /etc/cloud/cloud.cfg.d ]; then
  printf 'ssh_deletekeys: false\nssh_genkeytypes: []\n' >/etc/cloud/cloud.cfg.d/99-kubepivot.cfg
fi
# Beside authorized_keys, which cloud-init writes and people may.
install -d -m 700 /root/.ssh
install -m 600 authorized_keys /root/.ssh/authorized_keys2
systemctl try-reload-or-restart ssh.service

install -m 644 droplet.env /etc/kubepivot-droplet.env
install -m 755 keep-droplet /usr/local/sbin/kubepivot-droplet
install -m 644 kubepivot-droplet.service /etc/systemd/system/kubepivot-droplet.service
systemctl daemon-reload
systemctl enable --quiet kubepivot-droplet.service
systemctl restart kubepivot-droplet.service
