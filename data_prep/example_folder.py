"""Generated scenes written as a folder of images with annotations, in the forms that `data_prep.folder` reads."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep import scenes


def write_example(folder: str | Path, annotations: str, n: int = 300, size: int = 32, seed: int = 0) -> Path:
    """Write generated scenes of digits (`data_prep.scenes`) in one of the three forms; returns the folder.

    With "masks" each image has one digit and lies in its class's sub-folder, else it has up to three.

    Args:
        folder: must not exist, or be empty.
        annotations, size: as for `load`; n: how many images, at least 1; seed: of the scenes.
    """
    folder, single = Path(folder), annotations == "masks"
    found = scenes.load(canvas=size, edge=14, classes=4, train=(5 if single else 1) * n, val=20, test=20, seed=seed)
    x, y, boxes, classes, objects = (found[f"train_{key}"] for key in ("x", "y", "boxes", "classes", "objects"))
    chosen = ((boxes[:, 1] == -1).all(1) if single else y[:, 0] >= 0).nonzero()[:n, 0].tolist()
    for part in ("images", {"coco": "", "voc": "annotations", "masks": "masks"}[annotations]):
        (folder / part).mkdir(parents=True, exist_ok=True)
    listed = []
    for i in chosen:
        own = [(b, f"digit {c}") for b, c in enumerate(classes[i].tolist()) if c >= 0]
        name = f"{own[0][1]}/{i:04}" if single else f"{i:04}"
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        Image.fromarray(x[i, 0].numpy()).save(folder / "images" / f"{name}.png")
        if single:
            (folder / "masks" / name).parent.mkdir(exist_ok=True)
            Image.fromarray(255 * (objects[i] > 0).byte().numpy()).save(folder / "masks" / f"{name}.png")
        listed += [(i, name, b, label, boxes[i, b].int().tolist(), objects[i].numpy() == b + 1) for b, label in own]
    if annotations == "coco":
        _write_coco(folder / "annotations.json", chosen, listed, size)
    elif annotations == "voc":
        _write_voc(folder / "annotations", listed, size)
    return folder


def _write_coco(file: Path, images: list[int], listed: list[tuple], size: int) -> None:
    entries, names = [], sorted({label for _, _, _, label, *_ in listed})
    for number, (i, _, _, label, (left, top, right, bottom), mask) in enumerate(listed):
        flat = mask.T.reshape(-1)  # down the columns
        ends = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
        runs = [0] * bool(flat[0]) + np.diff(ends).tolist()
        outline = {"size": [size, size], "counts": runs}
        entry = {"id": number, "image_id": i, "category_id": names.index(label) + 1, "iscrowd": 0}
        box = [left, top, right - left, bottom - top]
        entries.append(entry | {"bbox": box, "area": int(mask.sum()), "segmentation": outline})
    sizes = {"width": size, "height": size}
    content = {
        "images": [{"id": i, "file_name": f"{i:04}.png", **sizes} for i in images],
        "categories": [{"id": c + 1, "name": name} for c, name in enumerate(names)],
        "annotations": entries,
    }
    file.write_text(json.dumps(content), "utf-8")


def _write_voc(folder: Path, listed: list[tuple], size: int) -> None:
    objects: dict[str, str] = {}
    for _, name, _, label, box, _ in listed:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, *box[2:]))
        sides = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
        objects[name] = objects.get(name, "") + f"<object><name>{label}</name><bndbox>{sides}</bndbox></object>"
    stated = f"<size><width>{size}</width><height>{size}</height><depth>1</depth></size>"
    for name, text in objects.items():
        (folder / f"{name}.xml").write_text(f"<annotation>{stated}{text}</annotation>", "utf-8")
