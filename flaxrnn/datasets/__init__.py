"""Where texts come from: one TFDS builder per corpus, synthetic counterparts, custom data."""
