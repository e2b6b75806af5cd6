"""What a router shows of its pools while it runs: each new observation to whoever watches, the last
hour or day as columns for charts, single clients by name."""
