"""Input that nobody meant, through everything that decodes and validates: `python -m tests.fuzz --seconds 600`."""
