"""Training state and steps, metrics, optimizer, checkpoints."""
