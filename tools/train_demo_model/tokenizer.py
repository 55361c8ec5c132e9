"""A byte-level BPE tokenizer of CLIP's kind whose every known word is one token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters() -> list[str]:
    """The 256 printable letters that stand for bytes in byte-level BPE (GPT-2, CLIP)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + k) for k in range(len(rest))]


def merges_for(words: list[str]) -> list[tuple[str, str]]:
    """Merges that join each word to one token, letter by letter from its start."""
    merges: dict[tuple[str, str], None] = {}
    for word in sorted(words, key=len):
        pieces = _apply([*word[:-1], word[-1] + "</w>"], list(merges))
        while len(pieces) > 1:
            merges[(pieces[0], pieces[1])] = None
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return list(merges)


def _apply(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Join pieces with the merges known so far, in their order."""
    for pair in merges:
        k = 0
        while k < len(pieces) - 1:
            if (pieces[k], pieces[k + 1]) == pair:
                pieces[k : k + 2] = ["".join(pair)]
            k += 1
    return pieces


def build_tokenizer(folder: Path, words: list[str]) -> CLIPTokenizer:
    """Write a tokenizer for the words into `folder`, in the slow and the fast file format."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = merges_for(words)
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {token: k for k, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    pairs: Any = merges  # takes pairs; its annotation names only the file's format
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return tokenizer


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Open a tokenizer folder."""
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer
