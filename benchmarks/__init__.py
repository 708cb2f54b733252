"""What the gateway costs beside the offline bound, and what its policies do; see `benchmarks.run` and `.simulate`."""
