"""Schedulers, which stop trials early."""
