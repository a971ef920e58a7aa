"""What runs on the cluster itself. Standard library only."""
