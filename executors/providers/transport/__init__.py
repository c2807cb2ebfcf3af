"""What all vendors have in common on the wire."""
