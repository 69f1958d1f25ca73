"""SamNetwork: a frozen encoder, a trainable decoder, a batched decode."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import nn
from torch.nn.functional import pad

from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.prompts.types import Prompts
from samonai.sam.encoder import encode_images
from samonai.sam.encoder_state import ENCODER_IDENTITY, register_hooks
from samonai.sam.normalisation import Normalisation
from samonai.sam.object_classifier import ObjectClassifier
from samonai.sam.outputs import DecodeOutput, HeadsOutput, choose_masks
from samonai.sam.prompted import decode_prompts, share_image
from samonai.sam.semantic import SemanticHead, decode_frames
from samonai.sam.shared_image import SharedImage
from samonai.sam.tuning import TrainParts, changed_encoder, open_decoder, open_encoder, tuned_sha256
from samonai.sam.windows import WindowRule, sharing_prompts, window_rule

__all__ = ["DecodeOutput", "HeadsOutput", "SamNetwork"]

IMAGE_CHANNELS = 3
"""Number of channels of an image; embeddings have more."""


class SamNetwork(nn.Module):
    """A Segment Anything model whose encoder is frozen and whose decoder can be trained.

    The modules are segment-anything's own. The encoder always stays in `eval()` and without
    gradient. `state_dict()` leaves it out, and `load_state_dict()` accepts a state without it: a
    saved network has 16 MB, with the encoder's sha256, and cannot be loaded beside another encoder.

    Attributes:
        name: Name of the model, such as "vit_b" or "micro".
        normalisation: Normalisation of 0..255 RGB values before the encoder.
        stock_sha256: sha256 of the weights that the encoder was loaded with.
        tuned_names: Trained parameters of the encoder; forks made before keep the stock encoder.
        checkpointing: Compute the encoder's activations again where their gradient is needed.
        semantic_head: The head for prediction without prompts, if one was added or loaded.
        object_classifier: Linear classifier of found objects; None unless training fitted it.
        multimask: Whether `decode_single` returns the best of a single point's three masks, as
            segment-anything's authors advise; False for decoders that were trained otherwise.
        windows: Rule of the window of image tokens that each prompt is decoded on; None: all.
    """

    encoder_identity: torch.Tensor
    semantic_head: SemanticHead | None
    object_classifier: ObjectClassifier | None
    tuned_names: frozenset[str]

    def __init__(
        self, sam: Sam, *, name: str, normalisation: Normalisation, encoder_sha256: str
    ) -> None:
        """Take over the modules of an upstream model.

        Args:
            sam: A model as segment-anything builds it.
            name: Name of the model.
            normalisation: The checkpoint's own normalisation.
            encoder_sha256: Hash of the encoder's weights, from `loading.encoder_sha256`.
        """
        super().__init__()
        self.image_encoder = sam.image_encoder
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.semantic_head, self.object_classifier = None, None
        self.name = name
        self.normalisation = normalisation
        self.stock_sha256 = encoder_sha256
        self._stock_encoder = [sam.image_encoder]  # in a list: no part of the network twice
        self.tuned_names = frozenset()
        self.checkpointing = self.multimask = True
        self.windows: WindowRule | None = None
        identity = torch.frombuffer(bytearray(bytes.fromhex(encoder_sha256)), dtype=torch.uint8)
        self.register_buffer(ENCODER_IDENTITY, identity)
        register_hooks(self)
        self.set_trainable()

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self.encoder_identity.device

    @property
    def encoder_sha256(self) -> str:
        """Return the sha256 of the encoder's current weights, 64 hexadecimal digits."""
        if not self.tuned_names:
            return self.stock_sha256
        return tuned_sha256(self.stock_sha256, self.image_encoder, self.tuned_names)

    @property
    def long_side(self) -> int:
        """Return the side of the square model image in pixels."""
        return int(self.image_encoder.img_size)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Return (C, h, w) of one frame's embedding."""
        height, width = self.prompt_encoder.image_embedding_size
        return int(self.prompt_encoder.embed_dim), int(height), int(width)

    def set_trainable(
        self,
        parts: str = "decoder",
        *,
        iou_head: bool = True,
        lora_rank: int = 8,
        checkpointing: bool = True,
        seed: int = 0,
    ) -> Self:
        """Choose the trainable parts; all others are frozen.

        Args:
            parts: In the vocabulary of `samonai.sam.tuning`, such as "decoder+prompts". Parts of
                the encoder are trained on a copy of it.
            iou_head: Also train the decoder's head that predicts each mask's IoU.
            lora_rank: Rank of LoRA's updates.
            checkpointing: See the attribute.
            seed: Seed of the initial LoRA factors and adapters.

        Raises:
            InputError: A part is unknown, or incompatible with this network or another part.
        """
        wanted = TrainParts.parse(parts)
        self.checkpointing = checkpointing
        self.requires_grad_(False)
        open_decoder(self.mask_decoder, wanted, iou_head=iou_head, rank=lora_rank, seed=seed)
        self.prompt_encoder.requires_grad_("prompts" in wanted.names)
        if self.semantic_head is not None:
            self.semantic_head.requires_grad_(True)
        if wanted.tunes_encoder:
            stock = self._stock_encoder[0]
            self.image_encoder = open_encoder(stock, wanted, rank=lora_rank, seed=seed)
            self.tuned_names = frozenset(
                name for name, p in self.image_encoder.named_parameters() if p.requires_grad
            )
        return self.train(self.training)

    def change_encoder(self, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Apply the trained changes of the encoder to a copy of the stock one; see `tuning`."""
        stock = self._stock_encoder[0]
        self.image_encoder, self.tuned_names = stock, frozenset()
        if tensors:
            self.image_encoder, self.tuned_names = changed_encoder(stock, tensors)
        return self.train(self.training)

    def add_semantic_head(
        self, classes: Sequence[int], seed: int = 0, *, borders: bool = False
    ) -> Self:
        """Add a semantic head, which labels a whole frame without a prompt; it replaces another.

        Args:
            classes: Label values of the K classes, above 0, without background.
            seed: Seed of its random weights.
            borders: Add a channel for object borders.

        Raises:
            InputError: The classes are invalid for a head.
        """
        self.semantic_head = SemanticHead(self.mask_decoder, classes, seed, borders)
        return self.train(self.training)

    def set_windows(self, windows: str) -> Self:
        """Choose the image tokens that a prompt's decoding sees, of `settings.choices.WINDOWS`.

        Raises:
            InputError: The choice is unknown.
        """
        self.windows = window_rule(windows)
        return self

    def remove_semantic_head(self) -> Self:
        """Remove the semantic head, if there is one."""
        self.semantic_head = None
        return self

    def fork(self) -> "SamNetwork":
        """Return a network with a decoder of its own (a copy) on the same encoder."""
        sam = Sam(self.image_encoder, deepcopy(self.prompt_encoder), deepcopy(self.mask_decoder))
        fork = SamNetwork(
            sam,
            name=self.name,
            normalisation=self.normalisation,
            encoder_sha256=self.stock_sha256,
        ).to(self.device)
        fork.semantic_head, fork.object_classifier = deepcopy(
            (self.semantic_head, self.object_classifier)
        )
        fork._stock_encoder, fork.tuned_names = self._stock_encoder, self.tuned_names
        fork.multimask, fork.windows = self.multimask, self.windows
        return fork

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of trainable parts; frozen parts stay in `eval()`."""
        super().train(mode)
        self.image_encoder.eval()
        if not any(p.requires_grad for p in self.prompt_encoder.parameters()):
            self.prompt_encoder.eval()
        return self

    def preprocess(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Convert a frame's image into the encoder's input: resize, normalise, pad.

        Args:
            image: uint8 (H, W, 3), RGB 0..255, frame space.

        Returns:
            float32 (3, S, S) with S = `long_side`, model space, on the CPU.

        Raises:
            ValueError: The image has another dtype or shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a frame's image is uint8 (H, W, 3), got {image.dtype} {image.shape}")
        geometry = FrameGeometry((image.shape[0], image.shape[1]), self.long_side)
        resized = torch.from_numpy(np.array(geometry.image_to_model(image), copy=True))
        return self.pad(self.normalisation.apply(resized.permute(2, 0, 1).float()))

    def pad(self, images: torch.Tensor) -> torch.Tensor:
        """Pad normalised images (..., h, w) with zeros, right and bottom, to the model's side."""
        height, width = images.shape[-2:]
        padded: torch.Tensor = pad(images, (0, self.long_side - width, 0, self.long_side - height))
        return padded.contiguous()

    def encode(self, images: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
        """Run the encoder.

        Args:
            images: float32 (B, 3, S, S), normalised and padded, model space.
            precision: "fp32", "bf16", "fp16", or "auto" for the best of the device.

        Returns:
            float32 (B, C, h, w), with a gradient only where the encoder is trained.

        Raises:
            ValueError: The images have another shape, or the precision is unknown.
        """
        expected = (3, self.long_side, self.long_side)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images to encode: expected (B, {', '.join(map(str, expected))}), "
                f"got {tuple(images.shape)}"
            )
        return encode_images(
            self.image_encoder,
            images.to(self.device),
            precision,
            checkpointing=self.checkpointing,
        )

    def decode(
        self,
        image_embeddings: torch.Tensor,
        prompts: Prompts,
        multimask_output: bool = False,
        *,
        all_masks: bool = False,
        shared: SharedImage | None = None,
    ) -> DecodeOutput:
        """Decode ragged prompts on a batch of embeddings; equal to upstream's loop over images.

        Args:
            image_embeddings: float (B, C, h, w); float16 from a store is possible.
            prompts: N prompts, each with the index of its image.
            multimask_output: Return the three masks for an ambiguous prompt, not the single one.
            all_masks: Return all of them, the single mask first.
            shared: From `share`, of the same embedding.

        Returns:
            Logits (N, M, 4h, 4w) and IoU predictions (N, M), in the order of the prompts.

        Raises:
            ValueError: The embeddings have another shape, or a prompt's image index is out of
                range.
        """
        self._check_embeddings(image_embeddings)
        if len(prompts) and int(prompts.image_index.max()) >= len(image_embeddings):
            raise ValueError(
                f"a prompt is on image {int(prompts.image_index.max())}, but the batch has "
                f"{len(image_embeddings)}"
            )
        image_embeddings = image_embeddings.to(self.device, torch.float32)
        prompts = prompts.to(self.device)
        if shared is None:
            sharing = sharing_prompts(self.windows, prompts, image_embeddings.shape[-1])
            shared = self.share(image_embeddings, sharing)
        count = self.mask_decoder.num_mask_tokens
        mask_tokens = (
            range(count) if all_masks else range(1, count) if multimask_output else range(1)
        )
        modules = self.prompt_encoder, self.mask_decoder
        return decode_prompts(
            *modules, image_embeddings, prompts, mask_tokens, shared, self.windows
        )

    def decode_single(
        self,
        image_embeddings: torch.Tensor,
        prompts: Prompts,
        shared: SharedImage | None = None,
    ) -> DecodeOutput:
        """Decode one mask for each prompt: for a single point by `multimask`; see `decode`."""
        ambiguous = prompts.row_is_ambiguous()
        if not (self.multimask and bool(ambiguous.any())):
            return self.decode(image_embeddings, prompts, shared=shared)
        output = self.decode(image_embeddings, prompts, all_masks=True, shared=shared)
        return choose_masks(output, ambiguous)

    def share(self, image_embeddings: torch.Tensor, prompts: int) -> SharedImage | None:
        """Compute once what so many prompts on one image share; None where it would not pay.

        `decode` and `decode_single` take it as `shared`, with the same embedding (1, C, h, w),
        until the decoder's weights change; see `share_image`.
        """
        images = image_embeddings.to(self.device, torch.float32)
        return share_image(self.prompt_encoder, self.mask_decoder, images, prompts)

    def decode_frames(self, image_embeddings: torch.Tensor) -> HeadsOutput:
        """Run the semantic head on whole frames, without a prompt.

        Args:
            image_embeddings: float (B, C, h, w); float16 from a store is possible.

        Returns:
            Logits of background and of the K classes, in the order of `semantic_head.values`, whose
            softmax are probabilities; and of borders, where the head has them.

        Raises:
            InputError: The network has no semantic head.
            ValueError: The embeddings have another shape.
        """
        if self.semantic_head is None:
            raise InputError(
                f"{self.name} has no semantic head and answers prompts only; train one with "
                f"heads=semantic or heads=both"
            )
        self._check_embeddings(image_embeddings)
        images = image_embeddings.to(self.device, torch.float32)
        return decode_frames(self.prompt_encoder, self.mask_decoder, self.semantic_head, images)

    def forward(
        self,
        image: torch.Tensor,
        prompts: Prompts | None = None,
        all_masks: bool = False,
        classes: bool = False,
    ) -> torch.Tensor | DecodeOutput | HeadsOutput:
        """Decode prompts on embeddings, or on images, which are encoded first.

        Args:
            image: float (B, C, h, w) embeddings, or float (B, 3, S, S) model images.
            prompts: The prompts. None decodes the main object of each whole frame (a box around
                the model image), as a plain tensor, for exports and shape checks.
            all_masks: As for `decode`.
            classes: Run the semantic head too, or alone without prompts. Both
                run in one pass, as training in several processes needs it.

        Returns:
            With `classes` a `HeadsOutput`; else with prompts a `DecodeOutput`, and without them
            float (B, 1, 256, 256) logits.
        """
        image = image.as_tensor() if hasattr(image, "as_tensor") else image
        embeddings = image
        if image.shape[1] == IMAGE_CHANNELS:
            lower = torch.is_autocast_enabled(self.device.type)
            embeddings = self.encode(image, "bf16" if lower else "fp32")
        if classes:
            prompted = None
            if prompts is not None:
                prompted = self.decode(embeddings, prompts, all_masks=all_masks)
            return self.decode_frames(embeddings)._replace(prompted=prompted)
        if prompts is not None:
            return self.decode(embeddings, prompts, all_masks=all_masks)
        side = float(self.long_side)
        whole = torch.tensor([[0.0, 0.0, side, side]]).repeat(len(embeddings), 1)
        index = torch.arange(len(embeddings))
        return self.decode(embeddings, Prompts(index, boxes=whole)).low_res_logits

    def _check_embeddings(self, image_embeddings: torch.Tensor) -> None:
        if image_embeddings.ndim != 4 or tuple(image_embeddings.shape[1:]) != self.embedding_shape:
            raise ValueError(
                f"image_embeddings of {self.name}: expected (B, {self.embedding_shape}), "
                f"got {tuple(image_embeddings.shape)}"
            )
