"""Annotation server: a page to click in, over one `Session`, on one machine.

* `annotation`: prompts and masks of one case, on disk after every change.
* `workspace`: cases, their sources in memory, and the prompts that are decoded for them.
* `proposals`, `figures`, `pictures`: masks to accept, measurements, files for the screen.
* `scoring`: the order in which cases come, by active learning.
* `encoding`: the queue of frames to encode, from the visible one outward.
* `learning`: training on corrected cases in another process, and the decoder that it gives.
* `guard`: hosts, origins, tokens and sizes that requests may have.
* `routes`, `views`, `server`: HTTP over all of these.
"""
