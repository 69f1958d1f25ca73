"""Retrieval: ranking of a page's regions for a question.

BM25 compares terms, and is the default. A sentence-transformers model compares embeddings; it
is loaded from a local folder, and nothing is downloaded. Both return no region rather than
an unrelated one.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.documents.text.text_matching import normalised
from samonai.domains.documents.text.words import HYPHENS, UNSPACED

Retrieve = Callable[[Sequence[str], str], list[tuple[int, float]]]
"""Ranks texts for a question: row and score 0..1, best first, without unrelated ones."""

BM25 = "bm25"

_LEAST_TERMS = 0.5
"""Least share of the question's terms that a text must have."""
_LEAST_SHARE = 0.5
"""Least share of the best text's BM25 score, for further texts."""
_LEAST_LIKENESS = 0.3
"""Least cosine of the embeddings of a question and a text."""
_LEAST_OF_BEST = 0.8
"""Least share of the best text's similarity, for further texts."""

_BROKEN = re.compile(f"(\\w)[{HYPHENS}]\n([a-z])")
_RUNS = re.compile(f"[{UNSPACED}]+")


def retriever(name: str) -> Retrieve:
    """Return the ranking function.

    Args:
        name: "bm25", or the folder of a sentence-transformers model.

    Raises:
        InputError: The folder does not exist, or sentence-transformers is not installed.
    """
    if name == BM25:
        return by_terms
    folder = Path(name).expanduser()
    if not (folder / "modules.json").is_file():
        raise InputError(
            f"retrieval={name!r}: expected bm25, or the folder of a sentence-transformers model, "
            f"with its modules.json"
        )
    if find_spec("sentence_transformers") is None:
        raise InputError(
            "ranking by a model needs sentence-transformers: pip install 'samonai[retrieval]'"
        )
    return partial(by_meaning, folder)


def by_terms(texts: Sequence[str], question: str) -> list[tuple[int, float]]:
    """Rank texts by the question's terms (BM25); the best has score 1.

    A text is ranked if it has at least half of the question's terms other than stop words.

    Raises:
        InputError: bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        raise InputError(
            "answering questions needs bm25s: pip install 'samonai[documents]'"
        ) from error
    tokenized = bm25s.tokenize(
        [_spaced(text) for text in (*texts, question)],
        stopwords="en",
        show_progress=False,
        return_ids=False,
    )
    *corpus, terms = [[normalised(term) for term in tokens] for tokens in tokenized]
    wanted = set(terms)
    if not wanted or not any(corpus):
        return []
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    scores = index.get_scores(sorted(wanted))
    fits = [len(wanted & set(tokens)) / len(wanted) >= _LEAST_TERMS for tokens in corpus]
    ranked = [(row, float(scores[row])) for row in np.argsort(-scores, kind="stable")]
    kept = [(int(row), score) for row, score in ranked if fits[row] and score > 0]
    return [(row, score / kept[0][1]) for row, score in kept if score >= _LEAST_SHARE * kept[0][1]]


def _spaced(text: str) -> str:
    """Return text with hyphenated words joined, and character pairs for scripts without spaces."""
    whole = _BROKEN.sub(r"\1\2", text)
    return _RUNS.sub(lambda run: f" {_pairs(run.group())} ", whole)


def _pairs(run: str) -> str:
    return " ".join(run[n : n + 2] for n in range(max(len(run) - 1, 1)))


def by_meaning(folder: Path, texts: Sequence[str], question: str) -> list[tuple[int, float]]:
    """Rank texts by the cosine similarity of their embeddings to the question's.

    Args:
        folder: Folder of the model.
        texts: Texts of the regions; empty ones are not ranked.
        question: The question.

    Raises:
        InputError: The model cannot be loaded.
    """
    rows = [row for row, text in enumerate(texts) if text.strip()]
    if not rows:
        return []
    model = _model(folder)
    asked = model.encode_query([question], normalize_embeddings=True, show_progress_bar=False)
    said = model.encode_document(
        [texts[row] for row in rows], normalize_embeddings=True, show_progress_bar=False
    )
    likeness = np.asarray(said) @ np.asarray(asked)[0]
    least = max(_LEAST_LIKENESS, _LEAST_OF_BEST * float(likeness.max()))
    order = np.argsort(-likeness, kind="stable")
    return [(rows[n], min(float(likeness[n]), 1.0)) for n in order if likeness[n] >= least]


@lru_cache(maxsize=1)
def _model(folder: Path) -> Any:
    """Load a model once; without code of its own, pickles or network access."""
    library = import_module("sentence_transformers")
    import_module("transformers.utils.logging").disable_progress_bar()
    try:
        return library.SentenceTransformer(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: no model that can be loaded: {reason}") from error
