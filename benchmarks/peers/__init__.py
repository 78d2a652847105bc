"""The product's peers: usual designs, and limits that a program with the product's duties cannot reach."""
