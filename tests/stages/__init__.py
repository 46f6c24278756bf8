"""What each stage does, with `inv` lines on real boxes."""
