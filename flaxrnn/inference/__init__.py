"""SavedModel run directories: prediction and export."""
