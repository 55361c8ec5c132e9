"""Files of embeddings, of whatever format."""

import hashlib
from pathlib import Path

from farm.errors import FarmError
from farm.weights.catalog import PICTURES
from farm.weights.embedding import Embedding, read_embedding
from farm.weights.embedding_picture import read_picture
from farm.weights.reading import read_object


def load_embedding(path: Path, name: str) -> Embedding:
    """Reads the file of an embedding, which is keyed by its content.

    Args:
        path: of the file.
        name: as prompts write it.

    Raises:
        FarmError: it cannot be read, or is none; in one line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FarmError(f"{path}: cannot be read: {error.strerror or error}") from error
    tree = read_picture(content, name) if path.suffix.lower() in PICTURES else read_object(path)
    return read_embedding(tree, name, hashlib.sha256(content).hexdigest())
