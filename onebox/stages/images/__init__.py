"""How images are made, by recipe, by hand or with Packer, and what becomes of them."""
