"""Page layout: pieces, region proposals, reading order, merging into regions."""
