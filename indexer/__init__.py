"""From files to embeddings to an index: sources, decoding, encoders, builds."""
