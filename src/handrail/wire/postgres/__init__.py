"""The PostgreSQL guard."""
