"""Pixels: safe decoding, colour, recolouring. Pure functions, to be called off the event loop."""
