"""A procedural town seen from a vehicle: our own source of a drive that may ship with the code."""
