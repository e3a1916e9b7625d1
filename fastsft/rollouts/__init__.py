"""What a line is: the structs that msgspec decodes, and what is found in them."""
