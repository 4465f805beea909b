"""Plans over unlike pools: uneven shares, uneven stages, subsets, local updates."""
