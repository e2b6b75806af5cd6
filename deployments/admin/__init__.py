"""`fairlane clients`, `groups`, `keys`, `usage` and `audit`: the admin API from a terminal.

`commands` says which there are and what each does, `api` speaks HTTP, `tables` shows answers.
"""
