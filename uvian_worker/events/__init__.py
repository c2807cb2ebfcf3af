"""Events on Redis: an appended log per topic, with cursors, and the pub/sub beside it."""
