"""What the checks of layers ask, one module each: LoRA's and DoRA's share them."""
