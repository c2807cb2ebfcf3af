"""The gateway, from tokens to pictures in a browser."""
