"""Model providers behind ports by capability, one file per vendor."""
