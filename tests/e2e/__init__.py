"""The page in a browser, against everything it is made of."""
