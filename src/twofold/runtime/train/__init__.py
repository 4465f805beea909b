"""Training on one device, exactly as a plan says."""
