"""From embeddings and prompts to label maps on the source's grid."""
