"""The dashboard at /dashboard and a client's own page at /me. docs/dashboard.md is for users.

Theory. Pages are files: they hold no data, so anyone may have them. All data come from the admin
API, through a door of the dashboard's own: `/dashboard/admin/...` is `/admin/...` for whoever has a
session instead of an admin key. What moves comes from what the observer saw (`router/admin/live`),
so a hundred open pages cost the store nothing beyond what one router reads anyway.

- `sessions`: who has shown an admin key, in a signed cookie that any router can check
- `ended`: sessions that were ended early, which all routers must know
- `throttle`: how often one may try to log in
- `static_files`, `headers`: the pages, and what browsers may do with them
- `app`: puts these together
- `me`: what a client may know of itself

`web/` is what comes from the npm registry (`npm ci && npm run build`), `static/` what is shipped.
"""
