"""The durable study: what was proposed, what came of it, and how it is taken up again."""
