"""Commands that measure flaxrnn; their result files are in results/."""
