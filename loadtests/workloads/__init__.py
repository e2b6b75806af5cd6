"""Workloads: the paper's, ours, and anyone's from a file."""
