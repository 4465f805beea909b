"""Records the option names of engines from their sources: `python record.py NAME SOURCE`.

SOURCE is a checkout (Megatron-LM, MaxText, vLLM) or the site-packages that hold the engine
(torchtitan, DeepSpeed, accelerate). Only names and choices are kept; nothing is imported.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Options = dict[str, Any]
"""True for a flag, a list for choices, None for any other value."""


def megatron(source: Path) -> Options:
    """`add_argument` calls, and the dataclasses that arguments are made of."""
    text = (source / "megatron/training/arguments.py").read_text()
    classes = _classes(
        [
            *(source / "megatron/training").rglob("*.py"),
            source / "megatron/core/transformer/transformer_config.py",
            source / "megatron/core/model_parallel_config.py",
        ]
    )
    options = _added_arguments(text)
    for name, left_out in _factories(text).items():
        for field, (annotation, value) in _fields(name, classes).items():
            shown = ast.unparse(value) if value is not None else ""
            if "init=False" in shown or field in left_out:
                continue
            on = _literal(value) is True or "default=True" in shown
            flag = annotation in ("bool", "Optional[bool]")
            named = re.findall(r"'(--[\w-]+)'", shown)
            words = field.replace("_", "-")
            for option in named or [f"--no-{words}" if flag and on else f"--{words}"]:
                options.setdefault(option, _literals(annotation) or (True if flag else None))
    return options


def maxtext(source: Path) -> Options:
    """The keys of `base.yml`, which its loader holds every file to."""
    text = (source / "src/maxtext/configs/base.yml").read_text()
    return dict.fromkeys(re.findall(r"^([a-z]\w*):", text, re.MULTILINE))


def torchtitan(source: Path) -> Options:
    """Fields of the configuration classes."""
    wanted = {
        "configs.py": ("TrainingConfig", "ParallelismConfig", "CompileConfig", "DebugConfig"),
    }
    options: Options = {}
    for file, names in wanted.items():
        classes = _classes([source / "torchtitan/config" / file])
        for name in names:
            for field, (annotation, _) in _fields(name, classes).items():
                options[f"{name}.{field}"] = _literals(annotation)
    scheduler = (source / "torchtitan/components/optimizer/lr_scheduler.py").read_text()
    kernels = (source / "torchtitan/components/optimizer/optimizer.py").read_text()
    for prefix, text in (("LRSchedulersContainer", scheduler), ("optimizer", kernels)):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.name == "Config":
                for field, (annotation, _) in _own_fields(node).items():
                    options[f"{prefix}.{field}"] = _literals(annotation)
    flavours = {}
    for module in ("llama3", "qwen3", "deepseek_v3"):
        text = (source / f"torchtitan/models/{module}/__init__.py").read_text()
        flavours[module] = re.findall(r'^    "([\w.-]+)": _\w+,$', text, re.MULTILINE)
    return options | {"flavours": flavours}


def accelerate(source: Path) -> Options:
    """Keys of the configuration file, those of its FSDP and parallelism sections included."""
    folder = source / "accelerate"
    classes = _classes([folder / "commands/config/config_args.py"])
    options: Options = dict.fromkeys(_fields("ClusterConfig", classes))
    launch = _added_arguments((folder / "commands/launch.py").read_text())
    for option in launch:
        key = option.removeprefix("--")
        if key.startswith("fsdp_"):
            options[f"fsdp_config.{key}"] = None
        if key.startswith("parallelism_config_"):
            options[f"parallelism_config.{key}"] = None
        if key.startswith("dynamo_"):
            options[f"dynamo_config.{key}"] = None
    return options


def deepspeed(source: Path) -> Options:
    """Fields of the ZeRO section, and the constants that name the other keys."""
    folder = source / "deepspeed/runtime"
    zero = _classes([folder / "zero/config.py"])
    fields = _fields("DeepSpeedZeroConfig", zero)
    options: Options = {f"zero_optimization.{field}": None for field in fields}
    texts = [(folder / name).read_text() for name in ("constants.py", "zero/config.py")]
    for node in [node for text in texts for node in ast.parse(text).body]:
        if isinstance(node, ast.Assign) and isinstance(_literal(node.value), str):
            options[str(_literal(node.value))] = None
    return {key: value for key, value in options.items() if re.fullmatch(r"[a-z0-9_.]+", key)}


def vllm(source: Path) -> Options:
    """Options of the server's engine arguments."""
    text = (source / "vllm/engine/arg_utils.py").read_text()
    return dict.fromkeys(re.findall(r'"(--[a-z][a-z0-9-]+)"', text))


def _factories(text: str) -> dict[str, list[str]]:
    """The dataclasses that become arguments, with the fields that do not."""
    tree = ast.parse(text)
    lists = {
        node.targets[0].id: _literal(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ArgumentGroupFactory":
            exclude = next((k.value for k in node.keywords if k.arg == "exclude"), None)
            named = lists.get(exclude.id) if isinstance(exclude, ast.Name) else _literal(exclude)
            found[ast.unparse(node.args[0])] = named or []
    return found


def _added_arguments(text: str) -> Options:
    options: Options = {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "add_argument":
            continue
        keywords = {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
        flag = keywords.get("action") in ("store_true", "store_false")
        for argument in node.args:
            word = _literal(argument)
            if isinstance(word, str) and word.startswith("--"):
                options[word] = keywords.get("choices") or (True if flag else None)
    return options


def _classes(files: list[Path]) -> dict[str, ast.ClassDef]:
    found: dict[str, ast.ClassDef] = {}
    for file in files:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, node)
    return found


def _fields(name: str, classes: dict[str, ast.ClassDef]) -> dict[str, tuple[str, Any]]:
    if name not in classes:
        return {}
    node = classes[name]
    found: dict[str, tuple[str, Any]] = {}
    for base in node.bases:
        found |= _fields(getattr(base, "id", ""), classes)
    return found | _own_fields(node)


def _own_fields(node: ast.ClassDef) -> dict[str, tuple[str, Any]]:
    return {
        one.target.id: (ast.unparse(one.annotation), one.value)
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }


def _literals(annotation: str) -> list[str] | None:
    return re.findall(r"'([^']+)'", annotation) if "Literal[" in annotation else None


def _literal(node: Any) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


if __name__ == "__main__":
    name, source, version = sys.argv[1:]
    options = globals()[name](Path(source))
    (HERE / f"{name}.json").write_text(
        json.dumps({"engine": name, "version": version, "options": options}, indent=0) + "\n"
    )
    print(f"{name}: {len(options)} options")
