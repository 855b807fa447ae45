"""What can be measured; each part has `measure(quick) -> Result`."""
