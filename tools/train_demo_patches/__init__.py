"""Trains what tiny-cats ships to be changed with: a LoRA, an embedding and a hypernetwork."""
