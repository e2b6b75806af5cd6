"""What operators load beside Fairlane: a Grafana dashboard and Prometheus alert rules.

`panels.py` says what the dashboard shows, `dashboard.py` writes it as `dashboard.json` (`make
docs`). `alerts.yaml` are the rules, `alerts_test.yaml` their tests for `promtool test rules`.
"""
