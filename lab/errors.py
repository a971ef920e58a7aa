"""The one error that the lab shows its user: what is wrong, and what mends it."""

from __future__ import annotations


class LabError(Exception):
    """Something that the user can mend. Shown without a traceback; the command ends with 1."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend
