"""OCI image layouts in folders, with random layers that no compression makes smaller."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
# The first bytes of a gzip stream: clients leave what begins so as it is.
GZIP = b"\x1f\x8b\x08"
IMAGE = "application/vnd.oci.image.manifest.v1+json"


def make_layout(folder: Path, layers: int, mib_each: int) -> Path:
    """An image of so many layers, under the tag `latest`; returns the folder."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")
    described = [_layer(blobs, mib_each) for _ in range(layers)]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        # Of what the layers would unpack to, which nobody does here.
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": _document(blobs, config, "application/vnd.oci.image.config.v1+json"),
        "layers": described,
    }
    top = _document(blobs, manifest, IMAGE) | {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}), encoding="utf-8")
    return folder


def random_file(path: Path, mib: int) -> str:
    """Fill a file with so many random MiB; returns its digest."""
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(mib):
            chunk = os.urandom(MIB)
            chunk = GZIP + chunk[len(GZIP) :] if number == 0 else chunk
            hasher.update(chunk)
            file.write(chunk)
    return f"sha256:{hasher.hexdigest()}"


def _layer(blobs: Path, mib: int) -> dict[str, Any]:
    path = blobs / "layer"
    digest = random_file(path, mib)
    path.rename(blobs / digest.removeprefix("sha256:"))
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": mib * MIB}


def _document(blobs: Path, content: dict[str, Any], media_type: str) -> dict[str, Any]:
    text = json.dumps(content).encode()
    hexadecimal = hashlib.sha256(text).hexdigest()
    (blobs / hexadecimal).write_bytes(text)
    return {"mediaType": media_type, "digest": f"sha256:{hexadecimal}", "size": len(text)}
