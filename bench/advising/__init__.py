"""What to do, for one model on one machine: measured here, beside what records say."""
