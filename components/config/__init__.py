"""The config of a stack: typed, and validated in whole before the first resource."""

from __future__ import annotations

from components.config.cluster import ClusterConfig, HostConfig, parse
from components.config.errors import ConfigError, Problem
from components.config.k8s_names import Taint

__all__ = ["ClusterConfig", "ConfigError", "HostConfig", "Problem", "Taint", "parse"]
