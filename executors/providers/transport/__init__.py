"""What calls to all vendors share: HTTP, limits, streams, requests that are answered later."""
