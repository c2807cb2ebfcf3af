"""REST, WebSocket and SSE for browsers: a stateless service, any number of them."""
