"""The server that watches a fleet of agents."""
