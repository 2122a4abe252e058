"""Commands that measure, and the results they left."""
