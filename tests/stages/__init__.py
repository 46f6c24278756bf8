"""What each stage does, by `inv` lines on real boxes."""
