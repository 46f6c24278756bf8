"""How images are built (recipe, saved box, Packer), listed and pruned."""
