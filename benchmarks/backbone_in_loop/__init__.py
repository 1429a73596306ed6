"""Baselines with the LLM inside the training loop (docs/efficiency.md). The product never imports them.

They share with it all that is not the LLM: sequences, batches, in-batch loss, recommender, training loop, evaluation,
tokenisation, pooling and standardisation.
"""
