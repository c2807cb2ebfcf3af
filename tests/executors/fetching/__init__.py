"""What a URL from outside may do to us: nothing."""
