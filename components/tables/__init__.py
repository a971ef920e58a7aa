"""Facts that several parts of the program go by, one table per noun. Data only."""

from __future__ import annotations
