"""The durable study: proposals, their results, and the recovery of both."""
