"""What an API imports."""
