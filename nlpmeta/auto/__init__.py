"""The default method: candidate heads, stacked, calibrated and judged with priors from auxiliary tasks."""
