"""The trunk: one connection of a router and a replica that carries all their streams."""
