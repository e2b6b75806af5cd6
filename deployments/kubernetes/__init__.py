"""Checks the manifests in k8s/ before a cluster sees them: `python -m deployments.kubernetes`."""
