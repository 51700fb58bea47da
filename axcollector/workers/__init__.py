"""The parent's side of several processes: what they listen on, how each is kept running, and what all are told."""
