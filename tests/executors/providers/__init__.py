"""Vendors over HTTP: against a laboratory that speaks their formats, and breaks on command."""
