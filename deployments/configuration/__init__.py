"""What is said of the configuration: problems and their mends, reference, JSON schema, command.

The models themselves are in `deployments/config.py`.
"""
