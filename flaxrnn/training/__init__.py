"""Training: steps, objective, optimizers, metrics; checkpoints, progress and workdir."""
