"""When a search ends before its trials do."""
