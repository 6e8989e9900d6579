"""A canary version against the stable one: the same faces, answers side by side, and whether the canary is worse."""
