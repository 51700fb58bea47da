"""Everything that decides: pure, without I/O, clock, thread, Deferred or logging; `now` is an argument."""
