"""Federated training of one decoder over several sites; their images and labels stay there.

Only the trained tensors of the decoder and its heads travel, as arrays, through NVFlare
(`samonai[federated]`). The encoder's sha256, the classes and the reading of images are agreed on
before the first round.
"""
