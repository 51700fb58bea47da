"""What operators ask: health."""
