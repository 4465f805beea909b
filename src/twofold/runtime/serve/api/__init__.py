"""The HTTP front: OpenAI's completions and chat completions, health, metrics."""
