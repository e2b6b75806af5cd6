"""From a configuration to a running application: what `serve run` takes, and the command line.

`config` is the typed configuration, `app` builds the Serve application from it, `local_cluster`
runs it on one machine, `cli` is the `fairlane` command. `*.yaml` are ready-made configurations.
"""
