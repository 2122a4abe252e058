"""Where texts come from: one TFDS builder per corpus, synthetic counterparts, your own data."""
