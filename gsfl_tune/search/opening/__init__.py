"""How a search begins or goes on."""
