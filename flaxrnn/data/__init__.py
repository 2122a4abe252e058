"""Text → ids → batches."""
