"""What stands in a prompt, and what is made of it before it is encoded. No torch."""
