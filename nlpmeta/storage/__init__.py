"""All that touches the disk or the Hub; it knows no model."""
