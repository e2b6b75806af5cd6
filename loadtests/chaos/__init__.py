"""Faults under load: what becomes of every request, lease and token when a part fails.

`scenarios` lists the faults, `stage` plays one against the real application; the judges are
pure: `outcomes`, `fair_again`, `leaks`, `charges`, and `verdict` with the bars.
"""
