"""What operators ask: health, metrics, status and the page that shows it; and what they can have done."""
