"""The configuration: its parts, and what is said of it (problems and mends, reference, schema).

A module for each part's models; `deployments/config.py` puts them together.
"""
