"""Trained models at work: prediction, attribution, generation and export."""
