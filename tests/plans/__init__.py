"""How the functions find their rows when there are a million."""
