"""Evidence of serving: answers as they came, and the goodput that follows from them."""
