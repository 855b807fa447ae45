"""The stores, one module each, imported when first used."""
