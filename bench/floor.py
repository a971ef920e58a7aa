"""A Pulumi program of as many resources as its stack says, none of which has inputs or waits for another."""

from __future__ import annotations

import pulumi
import pulumi_command as command

if __name__ == "__main__":
    for number in range(pulumi.Config().require_int("resources")):
        command.local.Command(f"floor-{number}")
