"""Where files go: one small module a kind, one interface (`base.Store`)."""
