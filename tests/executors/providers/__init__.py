"""Vendors over the wire: against a laboratory that speaks their formats, and breaks on command."""
