"""Events in, catalog out: where snapshots and changes come from, who applies them, and who asks."""
