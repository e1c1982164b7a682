"""A notebook's parameters: annotated names in its first cell, of one of four types."""

import ast

NOT_RECORDED = ("out",)  # where a run writes does not change what it finds
_TYPES = {"int": int, "float": float, "str": str, "bool": bool}


def check_parameters(given: dict, declared: dict[str, str]) -> None:
    """Raise ValueError for a parameter that a notebook does not have, or whose value has the wrong type.

    Args:
        given: name -> value.
        declared: name -> type name, one of int, float, str, bool.
    """
    for name, value in given.items():
        if name not in declared:
            raise ValueError(f"unknown parameter {name!r}; this notebook takes {', '.join(sorted(declared))}")
        kind = _TYPES[declared[name]]
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"parameter {name} must be {declared[name]}, got {value!r} ({type(value).__name__})")


def of_notebook(namespace: dict) -> dict:
    """Values of the notebook's parameters: the annotated names of its first cell."""
    declared = {n: t if isinstance(t, str) else t.__name__ for n, t in namespace.get("__annotations__", {}).items()}
    declared = {name: kind for name, kind in declared.items() if kind in _TYPES}
    injected = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters")]  # papermill's cell
    names = {t.id for cell in injected for s in ast.parse(cell).body if isinstance(s, ast.Assign) for t in s.targets}
    check_parameters({name: namespace[name] for name in names}, declared)
    values = {name: namespace[name] for name in declared}
    check_parameters(values, declared)
    return {n: float(v) if declared[n] == "float" else v for n, v in values.items() if n not in NOT_RECORDED}
