"""Who is stopped."""
