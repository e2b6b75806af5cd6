"""`fairlane doctor`: is this machine, store or running application fit for Fairlane, and if not,
what to do. Each module is one area: a function that yields findings, and changes nothing."""
