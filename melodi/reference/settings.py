"""The settings, read from the model that checks them."""

from melodi.config import Settings
from melodi.reference.page import Page, Section, code, sentence
from melodi.reference.schema import Schema, default_of, resolve, type_of

TEXT = (
    "Settings stand in `melodi.toml`, or in the file that `--config` names. The environment wins "
    "over the file: `MELODI_SAMPLING__NVML_PERIOD=20ms` sets `nvml_period` of the table "
    "`[sampling]`. `melodi config show` tells each setting's value and where it came from. "
    "A duration is written `50ms`, `3s`, `10m`, `2h` or `7d`."
)


def settings_page() -> Page:
    """Every setting by its table."""
    schema = Settings.model_json_schema(mode="serialization")
    shapes = schema["$defs"]
    alone: Schema = {}
    sections = []
    for name, field in schema["properties"].items():
        is_list = "items" in field
        shape = resolve(field["items"] if is_list else field, shapes)
        if "properties" not in shape:
            alone[name] = field
            continue
        title = code(f"[[{name}]]" if is_list else f"[{name}]")
        sections.append(_section(title, shape, shapes))
    top = {"properties": alone, "description": "They stand before the first table."}
    sections.insert(0, _section("Outside the tables", top, shapes))
    return Page(name="settings", title="Settings", text=TEXT, sections=tuple(sections))


def _section(title: str, shape: Schema, shapes: Schema) -> Section:
    required = shape.get("required", ())
    return Section(
        title=title,
        text=sentence(shape.get("description", "")),
        headings=("setting", "type", "default", "meaning"),
        rows=tuple(
            (
                code(name),
                type_of(field, shapes),
                "required" if name in required else code(default_of(field)),
                sentence(field.get("description", "")),
            )
            for name, field in shape["properties"].items()
        ),
    )
