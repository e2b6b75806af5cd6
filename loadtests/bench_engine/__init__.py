"""What fairness does, and costs, in a real vLLM engine; see ``__main__``."""
