"""Archive jobs: prediction and embedding of thousands of studies, resumable by a manifest."""
