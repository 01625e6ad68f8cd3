"""Whether the nodes of a cluster can run a search: what is asked, answered and compared."""
