"""`python -m lab.plugins.kubernetes <engine address>`: the plugin's process."""

from __future__ import annotations

from lab.plugins.common import serve
from lab.plugins.kubernetes.provider import VERSION, Kubernetes
from lab.plugins.kubernetes.servicer import Servicer

if __name__ == "__main__":
    serve(Kubernetes, VERSION, Servicer)
