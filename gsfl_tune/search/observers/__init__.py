"""Who is told what happens, and writes it down."""
