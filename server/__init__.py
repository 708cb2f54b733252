"""The gateway: batches rows of unequal length onto runtimes, over gRPC."""

__version__ = "0.1.0"
