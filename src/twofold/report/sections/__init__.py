"""The sections of the page: evidence and look in, markup out. What is missing is said."""
