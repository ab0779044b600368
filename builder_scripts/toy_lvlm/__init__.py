"""How the toys in ``medground_bench/lvlm/toy`` are made and measured; run as ``python -m builder_scripts.toy_lvlm``.

Not part of the wheel: a user needs the weights, not their training.
"""
