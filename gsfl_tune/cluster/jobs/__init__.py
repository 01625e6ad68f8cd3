"""A job on a cluster: the way there, what is uploaded, the command, what became of it."""
