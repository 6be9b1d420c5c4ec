"""Advice for one model on one machine: measurements made here, compared with records."""
