"""SAM as samonai uses it: a frozen encoder, a trainable decoder, a batched decode."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import nn
from torch.nn.functional import pad

from samonai.errors import InputError
from samonai.geometry import LOW_RES_STRIDE, FrameGeometry
from samonai.prompts import NO_POINT, Prompts
from samonai.sam.decoder import decode_class_tokens, decode_tokens
from samonai.sam.encoder import encode_images
from samonai.sam.normalisation import Normalisation
from samonai.sam.outputs import DecodeOutput, HeadsOutput, choose_masks
from samonai.sam.semantic import SemanticHead, values_to_restore

__all__ = ["DecodeOutput", "HeadsOutput", "SamNetwork"]

ENCODER_PREFIX = "image_encoder."
ENCODER_IDENTITY = "encoder_identity"


class SamNetwork(nn.Module):
    """A Segment Anything model whose encoder is frozen and whose decoder can be trained.

    The modules are segment-anything's own. The encoder always stays in `eval()` and without
    gradient. `state_dict()` leaves it out, and `load_state_dict()` accepts a state without it, so
    that whatever saves this network saves 16 MB; instead of the encoder the state carries its
    sha256, and loading it beside another encoder is an error.

    Attributes:
        name: Name of the model, such as "vit_b" or "micro".
        normalisation: What is done to 0..255 RGB values before the encoder.
        encoder_sha256: 64 hexadecimal digits that identify the encoder's weights.
        semantic_head: What answers without a prompt; None unless `add_semantic_head` was called
            or weights that have one were loaded.
        multimask: Whether `answer` gives a single point the best of its three readings, as
            segment-anything's authors advise; not for decoders that were trained otherwise.
    """

    encoder_identity: torch.Tensor
    semantic_head: SemanticHead | None

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
        self.semantic_head = None
        self.name = name
        self.normalisation = normalisation
        self.encoder_sha256 = encoder_sha256
        self.multimask = True
        identity = torch.frombuffer(bytearray(bytes.fromhex(encoder_sha256)), dtype=torch.uint8)
        self.register_buffer(ENCODER_IDENTITY, identity)
        self.register_state_dict_post_hook(_leave_encoder_out)
        self.register_load_state_dict_pre_hook(_check_and_restore_encoder)
        self.set_trainable()

    @property
    def device(self) -> torch.device:
        """Return the device that the weights are on."""
        return self.encoder_identity.device

    @property
    def long_side(self) -> int:
        """Return the side of the square model image in pixels."""
        return int(self.image_encoder.img_size)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Return (C, h, w) of one frame's embedding."""
        height, width = self.prompt_encoder.image_embedding_size
        return int(self.prompt_encoder.embed_dim), int(height), int(width)

    def set_trainable(self, *, prompt_encoder: bool = False, iou_head: bool = True) -> Self:
        """Choose what is trained: always the decoder, never the image encoder.

        Args:
            prompt_encoder: Train the prompt encoder too.
            iou_head: Train the head that predicts each mask's IoU.
        """
        self.requires_grad_(False)
        self.mask_decoder.requires_grad_(True)
        self.mask_decoder.iou_prediction_head.requires_grad_(iou_head)
        self.prompt_encoder.requires_grad_(prompt_encoder)
        if self.semantic_head is not None:
            self.semantic_head.requires_grad_(True)
        return self.train(self.training)

    def add_semantic_head(self, classes: Sequence[int], seed: int = 0) -> Self:
        """Add a fresh head that labels a whole frame without a prompt; it replaces another.

        Args:
            classes: Label values of the K classes, above 0; background is added by itself.
            seed: Seed of what in it is random.

        Raises:
            InputError: The classes cannot be those of a head.
        """
        self.semantic_head = SemanticHead(self.mask_decoder, classes, seed)
        return self.train(self.training)

    def remove_semantic_head(self) -> Self:
        """Take the semantic head away, if there is one."""
        self.semantic_head = None
        return self

    def fork(self) -> "SamNetwork":
        """Return a network with a decoder of its own (a copy) on the same encoder."""
        sam = Sam(self.image_encoder, deepcopy(self.prompt_encoder), deepcopy(self.mask_decoder))
        fork = SamNetwork(
            sam,
            name=self.name,
            normalisation=self.normalisation,
            encoder_sha256=self.encoder_sha256,
        ).to(self.device)
        fork.semantic_head = deepcopy(self.semantic_head)
        fork.multimask = self.multimask
        return fork

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of what is trained; frozen parts stay in `eval()`."""
        super().train(mode)
        self.image_encoder.eval()
        if not any(p.requires_grad for p in self.prompt_encoder.parameters()):
            self.prompt_encoder.eval()
        return self

    def preprocess(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Turn a frame's image into the encoder's input: resize, normalise, pad.

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
        """Run the frozen encoder.

        Args:
            images: float32 (B, 3, S, S), normalised and padded, model space.
            precision: "fp32", "bf16", "fp16", or "auto" for the best of the device.

        Returns:
            float32 (B, C, h, w), without gradient.

        Raises:
            ValueError: The images have another shape, or the precision is not known.
        """
        expected = (3, self.long_side, self.long_side)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images to encode: expected (B, {', '.join(map(str, expected))}), "
                f"got {tuple(images.shape)}"
            )
        return encode_images(self.image_encoder, images.to(self.device), precision)

    def decode(
        self,
        image_embeddings: torch.Tensor,
        prompts: Prompts,
        multimask_output: bool = False,
        *,
        every_slot: bool = False,
    ) -> DecodeOutput:
        """Decode ragged prompts on a batch of embeddings; equal to upstream's loop over images.

        Args:
            image_embeddings: float (B, C, h, w); float16 from a store is fine.
            prompts: N prompts, each with the index of its image.
            multimask_output: Return the three masks for an ambiguous prompt, not the single one.
            every_slot: Return all of them, the single mask first.

        Returns:
            Logits (N, M, 4h, 4w) and IoU predictions (N, M), in the order of the prompts.

        Raises:
            ValueError: The embeddings have another shape, or a prompt names no image.
        """
        self._check_embeddings(image_embeddings)
        if len(prompts) and int(prompts.image_index.max()) >= len(image_embeddings):
            raise ValueError(
                f"a prompt is on image {int(prompts.image_index.max())}, but the batch has "
                f"{len(image_embeddings)}"
            )
        image_embeddings = image_embeddings.to(self.device, torch.float32)
        prompts = prompts.to(self.device)
        groups = prompts.kinds()
        count = self.mask_decoder.num_mask_tokens
        slots = range(count) if every_slot else range(1, count) if multimask_output else range(1)
        parts = [self._decode_kind(image_embeddings, prompts[rows], slots) for rows in groups]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return self._empty_output(len(slots))
        order = torch.argsort(torch.cat(groups))
        return DecodeOutput(
            torch.cat([part.low_res_logits for part in parts])[order],
            torch.cat([part.iou_predictions for part in parts])[order],
        )

    def answer(self, image_embeddings: torch.Tensor, prompts: Prompts) -> DecodeOutput:
        """Decode one mask for each prompt: for a single point by `multimask`; see `decode`."""
        if not self.multimask:
            return self.decode(image_embeddings, prompts)
        output = self.decode(image_embeddings, prompts, every_slot=True)
        return choose_masks(output, prompts.row_is_ambiguous())

    def decode_classes(self, image_embeddings: torch.Tensor) -> torch.Tensor:
        """Let the semantic head label whole frames, without a prompt.

        Args:
            image_embeddings: float (B, C, h, w); float16 from a store is fine.

        Returns:
            float (B, K + 1, 4h, 4w): logits of background and of the K classes, in the order of
            `semantic_head.values`; their softmax are probabilities.

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
        image = image_embeddings.to(self.device, torch.float32).permute(0, 2, 3, 1).contiguous()
        with torch.autocast(self.device.type, enabled=False):
            position = self.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
        return decode_class_tokens(
            self.mask_decoder,
            image + self.prompt_encoder.no_mask_embed.weight,
            position,
            self.semantic_head.class_tokens.weight,
            list(self.semantic_head.hypernetworks),
        )

    def forward(
        self,
        image: torch.Tensor,
        prompts: Prompts | None = None,
        every_slot: bool = False,
        classes: bool = False,
    ) -> torch.Tensor | DecodeOutput | HeadsOutput:
        """Decode prompts on embeddings, or on images, which are encoded first.

        Args:
            image: float (B, C, h, w) embeddings, or float (B, 3, S, S) model images.
            prompts: The prompts. None asks for the main object of each whole frame (a box around
                the model image), as a plain tensor: what exports and shape checks call.
            every_slot: As `decode` takes it.
            classes: Let the semantic head answer too, or alone where there are no prompts. Both
                in one pass, as training in several processes needs it.

        Returns:
            With `classes` a `HeadsOutput`; else with prompts a `DecodeOutput`, and without them
            float (B, 1, 256, 256) logits.
        """
        image = image.as_tensor() if hasattr(image, "as_tensor") else image
        embeddings = self.encode(image) if image.shape[1] == 3 else image
        if classes:
            prompted = None
            if prompts is not None:
                prompted = self.decode(embeddings, prompts, every_slot=every_slot)
            return HeadsOutput(prompted, self.decode_classes(embeddings))
        if prompts is not None:
            return self.decode(embeddings, prompts, every_slot=every_slot)
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

    def _decode_kind(
        self, image_embeddings: torch.Tensor, prompts: Prompts, slots: range
    ) -> DecodeOutput:
        """Decode prompts that all have the same parts."""
        # bfloat16 cannot hold a coordinate of a 1024 frame, so positions never see autocast.
        with torch.autocast(self.device.type, enabled=False):
            sparse, dense = self._encode_prompts(prompts)
            position = self.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
        # Channels last: (B, h, w, C) and (N, h, w, C).
        image = image_embeddings.permute(0, 2, 3, 1).contiguous()
        image = image[prompts.image_index] + dense.permute(0, 2, 3, 1)
        logits, iou_predictions = decode_tokens(self.mask_decoder, image, position, sparse, slots)
        return DecodeOutput(logits, iou_predictions[:, slots.start : slots.stop])

    def _encode_prompts(self, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed prompts of one kind: sparse (N, T, C), dense (N, C, h, w)."""
        points = None
        if prompts.point_coords is not None and prompts.point_labels is not None:
            count = int((prompts.point_labels[0] != NO_POINT).sum())
            if count:
                # Padding goes last, so that rows of one kind have their points side by side.
                absent = prompts.point_labels == NO_POINT
                order = torch.argsort(absent.int(), dim=1, stable=True)
                order = order[:, :count]
                coords = prompts.point_coords.gather(1, order[..., None].expand(-1, -1, 2))
                # Upstream's own label of a blank token is -1.
                points = (coords, prompts.point_labels.gather(1, order).clamp(min=-1))
        boxes = prompts.boxes if bool(prompts.row_has_box()[0]) else None
        masks = prompts.mask_inputs if bool(prompts.row_has_mask()[0]) else None
        if points is None and boxes is None and masks is None:
            masks_absent = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
            _, height, width = self.embedding_shape
            dense = masks_absent.expand(len(prompts), -1, height, width)
            sparse = dense.new_zeros(len(prompts), 0, self.embedding_shape[0])
            return sparse, dense
        sparse, dense = self.prompt_encoder(points, boxes, masks)
        return sparse, dense

    def _empty_output(self, masks: int) -> DecodeOutput:
        side = self.long_side // LOW_RES_STRIDE
        empty = torch.zeros(0, masks, side, side, device=self.device)
        return DecodeOutput(empty, empty.new_zeros(0, masks))


def _leave_encoder_out(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any]
) -> None:
    """Drop the frozen encoder from a state dict; its identity stays."""
    for key in [key for key in state if key.startswith(prefix + ENCODER_PREFIX)]:
        del state[key]


def _check_and_restore_encoder(
    module: nn.Module, state: dict[str, Any], prefix: str, *_unused: Any
) -> None:
    """Complete a state without encoder by the module's own, once the identities agree.

    A network without semantic head gets the one that the state has.
    """
    assert isinstance(module, SamNetwork)
    identity = state.get(prefix + ENCODER_IDENTITY)
    if identity is not None and not torch.equal(identity.cpu(), module.encoder_identity.cpu()):
        raise InputError(
            f"these decoder weights were trained on another encoder (sha256 "
            f"{bytes(identity.cpu().tolist()).hex()[:16]}…) than the one loaded, {module.name} "
            f"(sha256 {module.encoder_sha256[:16]}…); load the model they were trained on"
        )
    own = module.image_encoder.state_dict(prefix=prefix + ENCODER_PREFIX)
    for key, value in own.items():
        if key in state and not torch.equal(state[key].to(value), value):
            raise InputError(
                f"{key} differs from the loaded {module.name} encoder, which is frozen; "
                f"load that checkpoint with load_sam(..., checkpoint=FILE) instead"
            )
        state[key] = value
    state.setdefault(prefix + ENCODER_IDENTITY, module.encoder_identity)
    if (values := values_to_restore(module.semantic_head, state, prefix)) is not None:
        module.add_semantic_head(values)
