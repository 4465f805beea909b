"""The report of a proof of serving."""
