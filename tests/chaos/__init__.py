"""Chaos: a service and its clients through a seeded schedule of faults, after which every promise is checked."""
