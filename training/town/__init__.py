"""A procedurally generated town, seen from a vehicle. Its recordings may be distributed with the code."""
