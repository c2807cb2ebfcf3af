"""Refining offline: what prompts ask for, and what is done to the pixels."""
