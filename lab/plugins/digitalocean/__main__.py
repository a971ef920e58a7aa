"""The plugin's process, as the engine starts it."""

from __future__ import annotations

from lab.plugins.common import serve
from lab.plugins.digitalocean.provider import VERSION, DigitalOceanProvider

if __name__ == "__main__":
    serve(DigitalOceanProvider, VERSION)
