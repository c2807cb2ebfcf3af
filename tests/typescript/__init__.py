"""The TypeScript client on real servers."""
