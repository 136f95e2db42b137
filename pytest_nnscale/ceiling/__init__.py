"""What a machine can do at most: measured by short runs, and kept for its fingerprint."""
