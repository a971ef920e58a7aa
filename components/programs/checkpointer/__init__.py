"""The pod-checkpointer: what a controller starts its control plane from while no API answers.

Its modules run in pods, by the standard library alone.
"""

from __future__ import annotations
