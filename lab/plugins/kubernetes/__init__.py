"""Stand-in for the official `kubernetes` provider plugin, 4.29.0."""
