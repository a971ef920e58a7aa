"""Measurements beside other tools, on this machine and in one run."""

from __future__ import annotations
