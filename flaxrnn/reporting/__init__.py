"""What a run prints and writes: progress, metrics, the result and its page."""
