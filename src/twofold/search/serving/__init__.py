"""The best way to answer requests on a fleet: enumerate, rank in closed form, simulate the best."""
