"""What the product is compared with: usual designs, and limits that nothing with its duties can reach."""
