"""Messages and client stubs; the vendor's are generated."""
