"""From a chat request to an engine and back: payload, call, answer."""
