"""Files that convlet writes."""

import os
import secrets
from pathlib import Path
from typing import Any

MODEL_SUFFIX = ".safetensors"


def model_path(path: Any, owner: str) -> Path:
    """The path of a model; ValueError unless it ends in .safetensors."""
    if not str(path).endswith(MODEL_SUFFIX):
        raise ValueError(
            f"{owner}: expected a path that ends in '{MODEL_SUFFIX}' (the format that convlet "
            f"writes), got {str(path)!r}"
        )
    return Path(path)


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes beside the path, then renames: a reader, or a crash, sees the old content or the new,
    never a part. A text is written as UTF-8. FileNotFoundError where there is no such folder."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
