"""Writes the asset directory on this machine (`mode: render`) and touches no host."""

from __future__ import annotations

import base64
import shlex

import pulumi
import pulumi_command as command

from components.archive import pack
from components.assets.render import render
from components.config import ClusterConfig, Problem
from components.hosts.machine import configured_machines
from components.pki import Pki

__all__ = ["write_assets"]


def write_assets(cfg: ClusterConfig) -> None:
    """Makes the keys and certificates, and writes every asset to `assetDirectory`.

    Fails if the directory exists, so that nobody's edits are lost; `destroy` leaves it.
    """
    machines = configured_machines(cfg)
    pki = Pki(cfg.name, cfg, machines, machines.api_host, pulumi.ResourceOptions())
    archive: pulumi.Input[str] = pki.read(
        lambda machines, texts: base64.b64encode(pack(render(cfg, machines, texts))).decode()
    )
    directory = shlex.quote(cfg.asset_directory)
    # A run that is cut short leaves no half directory under the name itself.
    new = shlex.quote(f"{cfg.asset_directory.rstrip('/')}.kubepivot-new")
    mend = "it exists; remove it or name another one"
    exists = shlex.quote(str(Problem.at(["assetDirectory"], cfg.asset_directory, mend)))
    command.local.Command(
        f"{cfg.name}-assets",
        create=f"""set -eu
umask 077
if [ -e {directory} ]; then
  echo {exists} >&2
  exit 1
fi
rm -rf {new}
mkdir -p {new}
base64 -d | tar -xzpf - -C {new}
mv {new} {directory}
""",
        stdin=pulumi.Output.secret(archive),
        logging=command.local.Logging.STDERR,
        add_previous_output_in_env=False,
    )
