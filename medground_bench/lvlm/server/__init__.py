"""LVLMs behind an OpenAI-compatible server that returns the log-probabilities of its prompts (vLLM).

``address`` reads ``openai:MODEL@http://HOST:PORT/v1``, ``client`` sends requests, ``model`` is what methods and filter
see, and ``conformance`` finds out before any run whether the numbers are what they should be. Nothing here needs torch.
"""
