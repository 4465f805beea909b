"""The load generator: requests to an OpenAI-compatible URL, timed at the intended moments."""
