"""Answers: what goes to the model, what is told while it writes, what is stored."""
