"""Export of fine-tuned models to other software: one module per format, each export verified."""
