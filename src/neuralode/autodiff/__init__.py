"""How f is differentiated: the tensors it uses, proxies for them, and the context of its forward pass."""
