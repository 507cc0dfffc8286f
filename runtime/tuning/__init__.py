"""Finding the cheapest plan whose maps are good enough."""
